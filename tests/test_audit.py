"""`make audit`: pip-audit with a vulnerability service of the test's own."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import NOT_AUDITED, VULNERABLE, Audit, audit

LOCK = "colorama==0.4.6 --hash=sha256:" + "0" * 64 + "\nsix==1.17.0 --hash=sha256:" + "1" * 64 + "\n"
KNOWN = {
    "id": "PYSEC-1",
    "published": "2026-01-01T00:00:00Z",
    "modified": "2026-01-01T00:00:00Z",
    "summary": "It is not well.",
    "affected": [
        {
            "package": {"name": "six", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.18"}]}],
        }
    ],
}


@contextmanager
def service(answers: dict[str, Any], *, status: int = 200) -> Iterator[str]:
    """OSV's API: what is known of a package, by name."""

    class Asked(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            body = json.dumps(answers.get(name, {})).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> str:
    (tmp_path / "requirements.lock").write_text(LOCK)
    return str(tmp_path / "requirements.lock")


def asked(lock: str, url: str) -> Any:
    return audit([lock], ["--vulnerability-service=osv", f"--osv-url={url}"])


def test_nothing_known_passes(lock: str) -> None:
    with service({}) as url:
        found = asked(lock, url)
    assert (found.status, found.asked) == (0, 2)


def test_something_known_fails_and_is_named(lock: str) -> None:
    with service({"six": {"vulns": [KNOWN]}}) as url:
        found = asked(lock, url)
    assert found.status == VULNERABLE
    assert "six 1.17.0: PYSEC-1, mended by 1.18" in found.words()


def test_a_service_that_does_not_answer_is_another_failure(lock: str) -> None:
    with service({}, status=503) as url:
        broken = asked(lock, url)
    for found in (broken, asked(lock, "http://127.0.0.1:1/")):
        assert found.status == NOT_AUDITED
        assert found.words().startswith("NOT AUDITED: nobody answers")


def test_a_package_the_service_does_not_know_is_no_pass() -> None:
    """What pip-audit itself calls a success: on a mirror without the JSON API it is true of all of them."""
    found = Audit(asked=2, unknown=["six: not found"])
    assert found.status == NOT_AUDITED
    assert "1 of 2 packages" in found.words()
