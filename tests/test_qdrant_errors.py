"""What a Qdrant server's refusals and silences become: a real client against answers as a server gives them."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from qdrant_client import QdrantClient

from processors.errors import PermanentError, PipelineError, UnavailableError
from schemas.records import Revision
from tests.vector_stores import Sides, embedded, opened_qdrant, vector_of

CALLS: list[Callable[[Sides], object]] = [
    lambda sides: sides.sink.heads(["a"]),
    lambda sides: sides.sink.write({}, embedded("a", ["text"], Revision(1, 0)), live=True),
    lambda sides: sides.sink.held("a", Revision(1, 0)),
    lambda sides: sides.sink.make_live("a", Revision(1, 0)),
    lambda sides: sides.sink.erase("a"),
    lambda sides: list(sides.sink.dump()),
]
READS: list[Callable[[Sides], object]] = [
    lambda sides: sides.retriever.search(vector_of("a"), None, limit=3),
    lambda sides: sides.retriever.count(),
    lambda sides: sides.retriever.document("a"),
]


@contextmanager
def answering(status: int, headers: dict[str, str]) -> Iterator[str]:
    """A server that gives every request the same answer."""

    class Answer(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in {"Content-Length": "2", "Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def sides_of(url: str) -> Sides:
    return opened_qdrant(QdrantClient(url=url, timeout=1, check_compatibility=False), "collection")


@pytest.mark.parametrize(
    ("status", "headers", "expected", "retry_after"),
    [
        (400, {}, PermanentError, None),
        (404, {}, PermanentError, None),
        (413, {}, PermanentError, None),
        (408, {}, UnavailableError, None),
        (429, {}, UnavailableError, None),
        (429, {"Retry-After": "7"}, UnavailableError, 7.0),
        (500, {}, UnavailableError, None),
        (503, {}, UnavailableError, None),
    ],
)
def test_an_error_answer(
    status: int, headers: dict[str, str], expected: type[PipelineError], retry_after: float | None
) -> None:
    with answering(status, headers) as url:
        sides = sides_of(url)
        for call in CALLS:
            with pytest.raises(expected) as caught:
                call(sides)
            assert getattr(caught.value, "retry_after", None) == retry_after
        for read in READS:
            with pytest.raises(UnavailableError) as unavailable:
                read(sides)
            assert unavailable.value.retry_after == retry_after


@pytest.mark.parametrize("listening", [False, True])
def test_a_server_that_is_away_or_silent(listening: bool) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        sides = sides_of(f"http://127.0.0.1:{server.getsockname()[1]}")
        for call in (CALLS[0], READS[0]):
            with pytest.raises(UnavailableError):
                call(sides)
