"""Differences over HTTP: a line each, one comparison at a time."""

import json
from collections.abc import Iterator

import pytest

from tests.api_server import Stack, serving


@pytest.fixture
def stack() -> Iterator[Stack]:
    with serving() as stack:
        yield stack


def test_differences_are_lines_and_the_last_line_is_done(stack: Stack) -> None:
    response = stack.http.get("/api/v1/consistency", params={"limit": 1})
    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    difference, _, last = map(json.loads, response.text.splitlines())
    assert difference == {
        "kind": "head-missing",
        "document_id": "d/0",
        "vectors": "unknown",
        "remedy": "republish",
        "held_version": 0,
    }
    assert last["done"]


def test_one_comparison_at_a_time(stack: Stack) -> None:
    stack.consistency.gate.clear()
    with stack.http.stream("GET", "/api/v1/consistency") as first:
        lines = first.iter_lines()
        assert "head-missing" in next(lines)
        assert stack.http.get("/api/v1/consistency").status_code == 429
        stack.consistency.gate.set()
        assert json.loads(list(lines)[-1])["done"]


def test_a_sweep_says_how_much_it_removed(stack: Stack) -> None:
    assert stack.http.post("/api/v1/consistency/sweep").json() == {"removed": 3}


def test_a_client_that_leaves_gives_its_place_back(stack: Stack) -> None:
    stack.consistency.found = 10_000
    for _ in range(3):
        with stack.http.stream("GET", "/api/v1/consistency", params={"limit": 10_000}) as response:
            assert next(response.iter_lines())
    stack.consistency.found = 1
    response = stack.http.get("/api/v1/consistency")
    while response.status_code == 429:  # the server notices a moment later
        response = stack.http.get("/api/v1/consistency")
    assert json.loads(response.text.splitlines()[-1])["done"]


@pytest.mark.parametrize("limit", [0, 10_001, "all"])
def test_a_limit_out_of_range_is_refused(stack: Stack, limit: object) -> None:
    assert stack.http.get("/api/v1/consistency", params={"limit": str(limit)}).status_code == 422
