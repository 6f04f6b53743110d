"""What the API refuses and how: every error's shape, every bound, and that nothing leaks."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import httpx
import pytest

from processors.errors import UnavailableError
from tests.api_server import Stack, serving

MEGABYTE = 1024 * 1024


@pytest.fixture
def stack() -> Iterator[Stack]:
    with serving() as stack:
        yield stack


@pytest.fixture(scope="module")
def untouched() -> Iterator[Stack]:
    """For requests that must not reach anything behind the API."""
    with serving() as stack:
        yield stack
        assert not (stack.publisher.log or stack.publisher.pending or stack.retriever.searches or stack.embedded)


def _problem(response: httpx.Response, status: int, kind: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["title"] and problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["type"] == (f"urn:aegis:problem:{kind}" if kind else "about:blank")
    return problem


def test_an_unknown_route_and_method_are_problems(untouched: Stack) -> None:
    _problem(untouched.http.get("/nowhere"), 404)
    response = untouched.http.put("/api/v1/search", json={})
    _problem(response, 405)
    assert response.headers["Allow"] == "POST"
    _problem(untouched.http.get("/api/v1/documents/unknown"), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ["body", "query"]),
        ({"query": ""}, ["body", "query"]),
        ({"query": " \n"}, ["body", "query"]),
        ({"query": "x" * 8193}, ["body", "query"]),
        ({"query": "q", "limit": 0}, ["body", "limit"]),
        ({"query": "q", "limit": 101}, ["body", "limit"]),
        ({"query": "q", "mode": "magic"}, ["body", "mode"]),
        ({"query": "q", "wait_for": "d"}, ["body", "wait_for"]),
        ({"query": "q", "wait_for": "d@x"}, ["body", "wait_for"]),
        ({"query": "q", "wait_for": "@1"}, ["body", "wait_for"]),
        ({"query": "q", "wait_timeout": 31}, ["body", "wait_timeout"]),
        ({"query": "q", "document_ids": []}, ["body", "document_ids"]),
        ({"query": "q", "document_ids": ["a", "\u0000"]}, ["body", "document_ids", 1]),
        ({"query": "q", "surprise": 1}, ["body", "surprise"]),
    ],
)
def test_an_invalid_search_is_told_what_is_wrong(untouched: Stack, body: object, where: list[object]) -> None:
    problem = _problem(untouched.http.post("/api/v1/search", json=body), 422, "invalid-request")
    assert [error["loc"] for error in problem["errors"]] == [where]
    assert set(problem["errors"][0]) == {"loc", "msg", "type"}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"document_id": "d"}, ["body"]),
        ({"document_id": "d", "text": "x", "content_uri": "file:///x"}, ["body"]),
        ({"document_id": "", "text": "x"}, ["body", "document_id"]),
        ({"document_id": "d", "text": "x", "operation": "delete"}, ["body", "operation"]),
        ({"document_id": "d", "text": "x", "surprise": 1}, ["body", "surprise"]),
        ({"document_id": "d", "text": "x", "version": -1}, ["body", "version"]),
        ({"document_id": "d", "content_base64": "???"}, ["body", "content_base64"]),
        ({"document_id": "d", "text": "x", "metadata": {"k": "v" * 70_000}}, ["body", "metadata"]),
        (["document"], ["body"]),
    ],
)
def test_an_invalid_document_is_told_what_is_wrong(untouched: Stack, body: object, where: list[object]) -> None:
    problem = _problem(untouched.http.post("/api/v1/documents", json=body), 422, "invalid-request")
    assert [error["loc"] for error in problem["errors"]] == [where]


@pytest.mark.parametrize("path", ["/api/v1/documents", "/api/v1/search"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"text": "\\ud800", "query": "\\ud800"}',
        b'{"text": "x", "metadata": {"a": NaN}, "\\ud800": 1, "query": "q"}',
        b'{"text": "x", "metadata": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"text": "x", "metadata": {"a": NaN}}',
        b'{"text": "x", "version": 1e400, "query": 1e400}',
    ],
)
def test_hostile_json_is_the_clients_fault(untouched: Stack, path: str, body: bytes) -> None:
    response = untouched.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422), response.text
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_form_is_checked_like_json(untouched: Stack) -> None:
    def upload(**fields: str) -> httpx.Response:
        return untouched.http.post("/api/v1/documents", files={"file": ("f.txt", b"x")}, data=fields)

    for fields, where in (
        ({"metadata": "[1]"}, ["body", "metadata"]),
        ({"metadata": "{"}, ["body", "metadata"]),
        ({"operation": "delete"}, ["body", "operation"]),
        ({"text": "x"}, ["body", "text"]),
        ({"document_id": "\x01"}, ["body", "document_id"]),
    ):
        problem = _problem(upload(**fields), 422, "invalid-request")
        assert [error["loc"] for error in problem["errors"]] == [where]
    _problem(upload(metadata=json.dumps({"k": "v" * 70_000})), 400)
    no_file = untouched.http.post("/api/v1/documents", files={"other": ("f.txt", b"x")})
    assert _problem(no_file, 422, "invalid-request")["errors"][0]["loc"] == ["body", "file"]
    two = untouched.http.post("/api/v1/documents", files=[("file", ("a", b"x")), ("file", ("b", b"x"))])
    _problem(two, 400)
    _problem(
        untouched.http.post("/api/v1/documents", content=b"x", headers={"Content-Type": "text/plain"}),
        415,
        "unsupported-media-type",
    )


def test_a_bug_is_logged_and_not_told(stack: Stack) -> None:
    stack.retriever.error = ValueError("secret of the store")
    response = stack.http.post("/api/v1/search", json={"query": "q"}, headers={"X-Request-ID": "bug-1"})
    assert "secret" not in json.dumps(_problem(response, 500, "internal-error"))
    [entry] = [entry for entry in stack.logs if entry["event"] == "unexpected"]
    assert (entry["request_id"], entry["log_level"]) == ("bug-1", "error")


def test_a_store_that_is_down_is_503(stack: Stack) -> None:
    stack.retriever.error = UnavailableError("secret address", retry_after=7.2)
    response = stack.http.post("/api/v1/search", json={"query": "q"})
    assert "secret" not in json.dumps(_problem(response, 503, "unavailable"))
    assert response.headers["Retry-After"] == "8"
    stack.lag.down = True
    lag = stack.http.get("/api/v1/lag")
    assert "secret" not in json.dumps(_problem(lag, 503, "unavailable"))


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", 'quo"te', "semi;colon"])
def test_an_insane_request_id_is_replaced(untouched: Stack, given: str) -> None:
    assert len(untouched.http.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"]) == 36


def _answer(stack: Stack, head: str) -> bytes:
    """What is answered to a request's head, of which no body ever comes."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=5) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
        return connection.recv(65536)


def test_a_body_that_says_it_is_too_large_is_not_read(stack: Stack) -> None:
    length = MEGABYTE + 1
    head = (
        f"POST /api/v1/documents HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {length}\n"
    )
    assert _answer(stack, head).startswith(b"HTTP/1.1 413 ")
    fits = stack.http.post("/api/v1/documents", json={"text": "x" * (MEGABYTE - 100)})
    assert fits.status_code == 202
    _problem(stack.http.post("/api/v1/documents", json={"text": "x" * MEGABYTE}), 413, "body-too-large")


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
def test_a_body_that_turns_out_too_large_is_cut_off(stack: Stack, content_type: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(32):
            yield b"x" * 65536

    response = stack.http.post("/api/v1/documents", content=chunks(), headers={"Content-Type": content_type})
    _problem(response, 413, "body-too-large")
    assert stack.publisher.pending == []


def test_a_search_body_is_small(stack: Stack) -> None:
    with serving(max_body_mb=64) as other:
        response = other.http.post("/api/v1/search", json={"query": "x" * MEGABYTE})
        _problem(response, 413, "body-too-large")
        assert other.http.post("/api/v1/documents", json={"text": "x" * 2 * MEGABYTE}).status_code == 202


def test_bodies_are_bounded_all_together(stack: Stack) -> None:
    """Five clients that send 900 kB each and then stop: the fifth is refused."""
    head = b"POST /api/v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: 1000000\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", stack.port), timeout=5) for _ in range(5)]
    try:
        for connection in connections:
            connection.sendall(head + b"x" * 900_000)
            time.sleep(0.1)
        assert connections[4].recv(65536).startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in connections:
            connection.close()
    time.sleep(0.2)
    assert stack.http.post("/api/v1/documents", json={"text": "x" * 900_000}).status_code == 202
    assert not [entry for entry in stack.logs if entry["log_level"] == "error"]  # leaving is not a bug


def test_publishing_is_refused_while_the_queue_is_too_long_before_the_body_is_read() -> None:
    with serving(max_lag_seconds=10, change=lambda stack: setattr(stack.lag, "seconds", 70.5)) as stack:
        head = "POST /api/v1/documents HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 900\n"
        answer = _answer(stack, head)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 61\r\n" in answer.lower()
        for _ in range(20):
            problem = _problem(stack.http.post("/api/v1/documents", json={"text": "x"}), 429, "queue-too-long")
        assert problem["lag_seconds"] == 70.5
        assert stack.lag.measured == 1  # the measurement serves for a while
        assert stack.http.delete("/api/v1/documents/d").status_code == 202


@pytest.mark.parametrize("change", [{"seconds": None}, {"down": True}])
def test_an_unknown_lag_lets_documents_in(change: dict[str, Any]) -> None:
    with serving(max_lag_seconds=10, change=lambda stack: stack.lag.__dict__.update(change)) as stack:
        assert stack.http.post("/api/v1/documents", json={"text": "x"}).status_code == 202


def test_a_lag_measurement_that_hangs_delays_only_the_first(stack: Stack) -> None:
    stack.lag.gate.clear()
    took = []
    for _ in range(5):
        started = time.monotonic()
        assert stack.http.post("/api/v1/documents", json={"text": "x"}).status_code == 202
        took.append(time.monotonic() - started)
    stack.lag.gate.set()
    assert took[0] >= 0.9
    assert sum(took[1:]) < 0.9
    assert stack.lag.measured == 1


def test_event_streams_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.routes.statuses._MAX_STREAMS", 1)
    with serving() as stack:
        with stack.http.stream("GET", "/api/v1/documents/d/events") as response:
            assert response.status_code == 200
            time.sleep(0.1)
            _problem(stack.http.get("/api/v1/documents/d/events"), 429, "overloaded")
        time.sleep(0.5)
        with stack.http.stream("GET", "/api/v1/documents/d/events") as response:
            assert response.status_code == 200


def test_no_document_is_accepted_that_the_broker_has_not_acknowledged(stack: Stack) -> None:
    stack.publisher.down = True
    with ThreadPoolExecutor(20) as threads:
        bodies = [{"document_id": f"d{number}", "text": "x"} for number in range(20)]
        responses = list(threads.map(lambda body: stack.http.post("/api/v1/documents", json=body), bodies))
    for response in responses:
        assert "secret" not in json.dumps(_problem(response, 503, "unavailable"))
        assert response.headers["Retry-After"] == "5"
    stack.publisher.down = False
    assert stack.http.delete("/api/v1/documents/d").status_code == 202


def test_documents_published_at_once_share_acknowledgements_but_not_failures(stack: Stack) -> None:
    bodies = [{"document_id": f"d{number}" if number % 10 else "refused", "text": "x"} for number in range(100)]
    with ThreadPoolExecutor(50) as threads:
        responses = list(threads.map(lambda body: stack.http.post("/api/v1/documents", json=body), bodies))
    assert [response.status_code for response in responses] == [202 if number % 10 else 500 for number in range(100)]
    assert {record.document_id for record, _ in stack.publisher.log} == {f"d{n}" for n in range(100) if n % 10}
    assert stack.publisher.flushes < 60


async def _search_at_once(stack: Stack, count: int, *, refused: int = 0) -> list[httpx.Response]:
    """``count`` searches in parallel; none is answered before ``refused`` of them have been."""
    url = f"http://127.0.0.1:{stack.port}"
    limits = httpx.Limits(max_connections=count + 1)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30, trust_env=False) as client:
        searches = [asyncio.create_task(client.post("/api/v1/search", json={"query": f"q{n}"})) for n in range(count)]
        if refused:
            for first in islice(asyncio.as_completed(searches), refused):
                await first
            assert (await client.get("/health/live", timeout=2)).status_code == 200
            stack.retriever.gate.set()
        return await asyncio.gather(*searches)


def test_fifty_searches_at_once_are_answered_each_with_its_own(stack: Stack) -> None:
    responses = asyncio.run(_search_at_once(stack, 50))
    assert [response.json()["query"] for response in responses] == [f"q{number}" for number in range(50)]
    assert len({response.headers["X-Request-ID"] for response in responses}) == 50


def test_too_many_searches_are_refused_and_the_rest_is_bounded(stack: Stack) -> None:
    stack.retriever.gate.clear()
    responses = asyncio.run(_search_at_once(stack, 140, refused=12))
    refused = [response for response in responses if response.status_code != 200]
    assert len(refused) == 12
    for response in refused:
        _problem(response, 429, "overloaded")
        assert response.headers["Retry-After"] == "1"
    assert stack.retriever.most_running == 16
