"""POST /v1/embeddings over a real HTTP server and a real micro-batcher."""

import base64
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from api.routes import embeddings
from processors.errors import UnavailableError
from processors.micro_batcher import Priority
from tests.api_server import MemoryEmbeddings, Stack, serving
from tests.waiting import until


@pytest.fixture
def stack() -> Iterator[Stack]:
    with serving() as stack:
        yield stack


def ask(stack: Stack, **body: object) -> httpx.Response:
    return stack.http.post("/v1/embeddings", json=body)


def test_texts_become_vectors_in_openais_shape(stack: Stack) -> None:
    response = ask(stack, input=["one two", "three"], model="words", dimensions=4, user="someone")
    assert response.status_code == 200, response.text
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [7, 0, 0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [5, 0, 0, 0.5]},
        ],
        "model": "words",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def test_one_text_and_base64(stack: Stack) -> None:
    [embedding] = ask(stack, input="one two", encoding_format="base64").json()["data"]
    vector = np.frombuffer(base64.b64decode(embedding["embedding"]), "<f4")
    np.testing.assert_array_equal(vector, [7, 0, 0, 0.5])


@pytest.mark.parametrize(
    ("body", "field", "complaint"),
    [
        ({"input": [1, 2, 3]}, "input", "token ids are not taken"),
        ({"input": [[1, 2], [3]]}, "input", "token ids are not taken"),
        ({"input": []}, "input", "at least 1"),
        ({"input": ""}, "input", "at least 1"),
        ({"input": ["x"] * 257}, "input", "257 texts are more than the 256"),
        ({"input": "x", "model": "other"}, "model", "the model here is 'words'"),
        ({"input": "x", "dimensions": 3}, "dimensions", "have 4 dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format", "base64"),
        ({"input": "\ud800"}, "input", "unicode"),
        ({"input": "x", "surprise": 1}, "surprise", "not permitted"),
        ({}, "input", "required"),
    ],
)
def test_what_cannot_be_embedded_is_told_why(stack: Stack, body: object, field: str, complaint: str) -> None:
    content = json.dumps(body).encode()
    response = stack.http.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    errors = response.json()["errors"]
    assert {error["loc"][1] for error in errors} == {field}
    assert any(complaint in error["msg"] for error in errors), errors
    assert stack.embeddings.computed == []


def test_too_many_tokens_are_refused(stack: Stack) -> None:
    response = ask(stack, input="w " * 32_769)
    assert (response.status_code, response.json()["type"]) == (413, "urn:aegis:problem:too-many-tokens")
    assert stack.embeddings.computed == []


def test_overload_is_429_with_a_retry_after_that_is_right() -> None:
    def small(stack: Stack) -> None:
        stack.embeddings = MemoryEmbeddings(max_queued_tokens=1000)

    with serving(change=small) as stack, ThreadPoolExecutor(1) as pool:
        stack.embeddings.gate.clear()
        running = pool.submit(ask, stack, input="w " * 100)
        until(lambda: stack.embeddings.batcher._running_tokens)
        queued = stack.embeddings.submit(["w " * 1000], priority=Priority.BULK)
        full = ask(stack, input=["one", "two"])
        assert (full.status_code, full.json()["type"]) == (429, "urn:aegis:problem:overloaded"), full.text
        assert int(full.headers["Retry-After"]) >= 1
        stack.embeddings.gate.set()
        assert running.result().status_code == 200
        queued.result(20)
        assert ask(stack, input=["one", "two"]).status_code == 200


def test_a_client_that_leaves_takes_its_work_with_it(stack: Stack) -> None:
    stack.embeddings.gate.clear()
    blocker = stack.embeddings.submit(["runs now"], priority=Priority.INTERACTIVE)
    until(lambda: stack.embeddings.batcher._running_tokens)
    body = json.dumps({"input": ["left alone", "left behind"]}).encode()
    size = len(body)
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}"
    )
    with socket.create_connection(("127.0.0.1", stack.port), timeout=5) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        until(lambda: stack.embeddings.batcher.queued_tokens == 4)
    until(lambda: stack.embeddings.batcher.queued_tokens == 0)
    stack.embeddings.gate.set()
    blocker.result(20)
    assert ask(stack, input="still here").status_code == 200
    assert sorted(stack.embeddings.computed) == ["runs now", "still here"]
    assert not [entry for entry in stack.logs if entry["log_level"] == "error"]


def test_what_is_not_there_in_time_is_504(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_BUDGET", 0.2)
    stack.embeddings.gate.clear()
    late = ask(stack, input="slow")
    stack.embeddings.gate.set()
    assert (late.status_code, late.json()["type"]) == (504, "urn:aegis:problem:not-in-time")


def test_a_model_that_fails_is_503(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(texts: object) -> object:
        raise UnavailableError("secret device")

    monkeypatch.setattr(stack.embeddings.batcher, "_run", failing)
    response = ask(stack, input="x")
    assert response.status_code == 503
    assert "secret" not in response.text
