"""Publishing by URI: what is fetched, and everything that may not be reached by it."""

import gzip
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from api.addresses import is_reachable
from api.fetching import resolve
from tests.api_server import Stack, serving

LOOPBACK = {"fetch": True, "fetch_private": ["127.0.0.0/8"], "fetch_timeout": 2}


class Site(BaseHTTPRequestHandler):
    """Documents, and everything that may go wrong with them. ``asked`` are the paths and hosts."""

    asked: list[tuple[str, str]]
    closing: threading.Event

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        kind, _, rest = self.path.removeprefix("/").partition("?")
        if kind == "leave.md":
            self.answer(b"# Leave\n", {"Content-Type": "text/markdown; charset=utf-8"})
        elif kind == "untyped.pdf":
            self.answer(b"%PDF-1.4", {})
        elif kind == "to":
            self.answer(b"x" * 10, {"Location": rest}, status=302)
        elif kind == "circle":
            self.answer(b"", {"Location": "/circle"}, status=302)
        elif kind == "bomb":
            self.answer(gzip.compress(bytes(10_000_000)), {"Content-Encoding": "gzip"})
        elif kind == "endless":
            self.trickle(bytes(100_000), 0.0)
        elif kind == "slow":
            self.trickle(b"x", 0.1)
        else:
            self.answer(b"secret of the server", {}, status=500)

    def answer(self, body: bytes, headers: dict[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def trickle(self, piece: bytes, seconds: float) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.closing.wait(seconds):
                self.wfile.write(piece)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def site(tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """A web site on a free port of 127.0.0.1, and what it was asked."""
    handler: Any = type("Here", (Site,), {"asked": [], "closing": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_port, handler.asked
    finally:
        handler.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def web() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    with site() as there:
        yield there


@pytest.fixture(scope="module")
def fetching() -> Iterator[Stack]:
    with serving(api=LOOPBACK) as stack:
        yield stack


@pytest.fixture(scope="module")
def strict() -> Iterator[Stack]:
    with serving(api={"fetch": True, "fetch_timeout": 5}) as stack:
        yield stack
        assert not (stack.publisher.log or stack.publisher.pending)


class Names:
    """A resolver that a test writes; a name with several lists gives them in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        monkeypatch.setattr("api.fetching.resolve", self.resolve)

    async def resolve(self, host: str, port: int | None) -> list[str]:
        if host not in self.names:
            return await resolve(host, port)
        self.asked.append(host)
        turns = self.names[host]
        return turns.pop(0) if len(turns) > 1 else turns[0]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def publish(stack: Stack, uri: str, **fields: object) -> tuple[int, dict[str, Any]]:
    response = stack.http.post("/api/v1/documents", json={"uri": uri, **fields})
    return response.status_code, response.json()


def test_a_document_is_fetched_and_its_content_published(fetching: Stack, web: tuple[int, Any]) -> None:
    uri = f"http://127.0.0.1:{web[0]}/leave.md"
    status, accepted = publish(fetching, uri, title="Leave", metadata={"team": "people"})
    assert (status, accepted["document_id"]) == (202, uri)
    document, _ = fetching.publisher.log[-1]
    assert (document.content_base64, document.content_uri) == ("IyBMZWF2ZQo=", None)
    assert (document.media_type, document.source, document.title) == ("text/markdown", uri, "Leave")
    pdf = f"http://127.0.0.1:{web[0]}/untyped.pdf"
    assert publish(fetching, pdf, document_id="d", source="s")[0] == 202
    document, _ = fetching.publisher.log[-1]
    assert (document.document_id, document.source, document.media_type) == ("d", "s", "application/pdf")


def test_redirects_are_followed_but_not_for_ever(fetching: Stack, web: tuple[int, Any]) -> None:
    here = f"http://127.0.0.1:{web[0]}"
    assert publish(fetching, f"{here}/to?/to?/to?/leave.md")[0] == 202
    status, problem = publish(fetching, f"{here}/circle")
    assert (status, problem["type"]) == (502, "urn:aegis:problem:not-fetched")
    assert "more than 3 times" in problem["detail"]


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("missing", 502, "status 500"),
        ("bomb", 502, "sent compressed"),
        ("endless", 413, "larger than 1,048,576 bytes"),
        ("slow", 504, "not there within 2 s"),
    ],
)
def test_what_a_server_may_do_is_bounded(
    fetching: Stack, web: tuple[int, Any], path: str, status: int, reason: str
) -> None:
    started = time.monotonic()
    answered, problem = publish(fetching, f"http://127.0.0.1:{web[0]}/{path}")
    assert answered == status
    assert reason in problem["detail"]
    assert "secret" not in str(problem)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
        "①②⑦.⓪.⓪.①",
    ],
)
def test_no_spelling_of_an_inner_address_is_reached(strict: Stack, web: tuple[int, Any], host: str) -> None:
    before = len(web[1])
    status, problem = publish(strict, f"http://{host}:{web[0]}/leave.md")
    assert (status, problem["type"]) in [
        (422, "urn:aegis:problem:uri-refused"),
        (502, "urn:aegis:problem:not-fetched"),  # where this system resolves no such name
    ]
    assert (
        "not public" in problem["detail"] or "no address" in problem["detail"] or "no web address" in problem["detail"]
    )
    assert len(web[1]) == before


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_addresses_are_reachable(address: str) -> None:
    assert is_reachable(address, ())


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://example.org/x", "only http and https"),
        ("gopher://127.0.0.1/_x", "only http and https"),
        ("leave.md", "only http and https"),
        ("http://", "only http and https"),
        ("http://user:hunter2@example.org/", "a user's name"),
        ("http://example.org:x/", "no web address"),
        ("http://127.0.0.1:99999999/", "no such port"),
    ],
)
def test_other_schemes_and_credentials_are_refused(strict: Stack, uri: str, reason: str) -> None:
    status, problem = publish(strict, uri, document_id="d")
    assert (status, problem["type"]) == (422, "urn:aegis:problem:uri-refused")
    assert reason in problem["detail"]
    assert "hunter2" not in str(problem)


def test_every_redirect_is_checked(names: Names, web: tuple[int, list[tuple[str, str]]]) -> None:
    names.names["inner.example"] = [["127.0.0.2"]]
    with serving(api={**LOOPBACK, "fetch_private": ["127.0.0.1/32"]}) as stack:
        for target in (
            f"http://inner.example:{web[0]}/leave.md",
            f"http://127.0.0.3:{web[0]}/leave.md",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            f"http://user:x@127.0.0.1:{web[0]}/leave.md",
        ):
            before = len(web[1])
            status, problem = publish(stack, f"http://127.0.0.1:{web[0]}/to?{target}")
            assert (status, len(web[1]) - before) == (422, 1), (target, problem)


def test_all_addresses_of_a_name_have_to_be_public(names: Names, strict: Stack) -> None:
    for addresses in (["10.0.0.5"], ["8.8.8.8", "192.168.0.1"], ["2606:4700::1111", "::1"]):
        names.names["mixed.example"] = [addresses]
        status, problem = publish(strict, "http://mixed.example/")
        assert (status, problem["detail"]) == (
            422,
            "http://mixed.example/ is not fetched: mixed.example has an address that is not public",
        )


def test_a_name_is_resolved_once_so_that_it_cannot_change_its_meaning(
    names: Names, web: tuple[int, list[tuple[str, str]]]
) -> None:
    names.names["rebound.example"] = [["127.0.0.1"], ["127.0.0.9"]]  # the second is refused, and nobody listens there
    with serving(api={**LOOPBACK, "fetch_private": ["127.0.0.1/32"]}) as stack:
        uri = f"http://rebound.example:{web[0]}/leave.md"
        assert publish(stack, uri)[0] == 202
        assert names.asked == ["rebound.example"]
        assert web[1][-1] == ("/leave.md", f"rebound.example:{web[0]}")
        assert publish(stack, uri)[0] == 422


def test_the_certificate_is_that_of_the_name(names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate}"
    command += " -days 2 -subj /CN=right.example -addext subjectAltName=DNS:right.example"
    subprocess.run(command.split(), check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    monkeypatch.setattr("api.fetching.Fetcher._tls", ssl.create_default_context(cafile=str(certificate)))
    names.names |= {"right.example": [["127.0.0.1"]], "wrong.example": [["127.0.0.1"]]}
    with site(server) as (port, asked), serving(api=LOOPBACK) as stack:
        assert publish(stack, f"https://right.example:{port}/leave.md")[0] == 202
        assert publish(stack, f"https://wrong.example:{port}/leave.md")[0] == 502
        assert asked == [("/leave.md", f"right.example:{port}")]


def test_fetching_is_off_unless_it_is_allowed_and_may_be_kept_to_hosts(names: Names, web: tuple[int, Any]) -> None:
    names.names["other.example"] = [["127.0.0.1"]]
    with serving() as stack:
        status, problem = publish(stack, "https://example.org/")
        assert (status, problem["type"]) == (403, "urn:aegis:problem:fetching-is-off")
    with serving(api={**LOOPBACK, "fetch_hosts": ["127.0.0.1"]}) as stack:
        assert publish(stack, f"http://127.0.0.1:{web[0]}/leave.md")[0] == 202
        status, problem = publish(stack, f"http://other.example:{web[0]}/leave.md")
        assert (status, "AEGIS_API__FETCH_HOSTS" in problem["detail"]) == (422, True)


def test_a_document_is_checked_before_anything_is_fetched(fetching: Stack, web: tuple[int, Any]) -> None:
    uri, before = f"http://127.0.0.1:{web[0]}/leave.md", len(web[1])
    for fields, where in (
        ({"uri": 3}, "uri"),
        ({"uri": uri, "text": "x"}, "uri"),
        ({"uri": uri, "surprise": 1}, "surprise"),
        ({"uri": uri, "operation": "delete"}, "operation"),
        ({"uri": uri, "document_id": ""}, "document_id"),
    ):
        response = fetching.http.post("/api/v1/documents", json=fields)
        assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body", where])
    assert len(web[1]) == before
    assert fetching.http.post("/api/v1/documents", json={"uri": None, "text": "x"}).status_code == 202
