"""Dead letters and progress over HTTP."""

from collections.abc import Iterator

import pytest

from schemas.status import Stuck
from tests.api_server import Stack, serving


@pytest.fixture
def stack() -> Iterator[Stack]:
    with serving() as stack:
        for number in range(3):
            stack.dead_letters.add(f"chunk/0/{number}", document_id=f"d/{number}", error="it is encrypted")
        stack.dead_letters.add("embed/1/7", document_id="e", error="no model", value=b"x" * 100_000)
        yield stack


def test_dead_letters_are_listed_and_grouped_by_reason(stack: Stack) -> None:
    found = stack.http.get("/api/v1/dlq", params={"limit": 2}).json()
    assert [letter["id"] for letter in found["dead_letters"]] == ["chunk/0/0", "chunk/0/1"]
    assert found["total"] == 4
    assert [(group["error"], group["count"]) for group in found["groups"]] == [("it is encrypted", 3), ("no model", 1)]
    chosen = stack.http.get("/api/v1/dlq", params={"error": "*encr*", "document": "d/2", "stages": "chunk"}).json()
    assert [letter["document_id"] for letter in chosen["dead_letters"]] == ["d/2"]
    assert stack.http.get("/api/v1/dlq", params={"stages": "nope"}).status_code == 422


def test_a_dead_letter_is_shown_with_a_bounded_value(stack: Stack) -> None:
    shown = stack.http.get("/api/v1/dlq/embed/1/7").json()
    assert (shown["dead_letter"]["document_id"], shown["value_bytes"], len(shown["value"])) == ("e", 100_000, 65_536)
    assert shown["headers"] == {"h": "\ufffd1"}
    missing = stack.http.get("/api/v1/dlq/embed/1/8")
    assert (missing.status_code, missing.json()["type"].rpartition(":")[2]) == (404, "unknown-dead-letter")


def test_a_replay_is_meant_and_can_be_tried_first(stack: Stack) -> None:
    assert stack.http.post("/api/v1/dlq/replay", json={}).status_code == 422
    tried = stack.http.post("/api/v1/dlq/replay", json={"error": "*encr*", "dry_run": True}).json()
    assert (len(tried["dead_letters"]), tried["dry_run"], stack.dead_letters.replayed) == (3, True, [])
    stack.http.post("/api/v1/dlq/replay", json={"error": "*encr*", "limit": 2})
    assert stack.dead_letters.replayed == ["chunk/0/0", "chunk/0/1"]
    stack.http.post("/api/v1/dlq/drop", json={"ids": ["chunk/0/2"]})
    assert list(stack.dead_letters.letters) == ["embed/1/7"]
    assert len(stack.http.post("/api/v1/dlq/drop", json={"every": True}).json()["dead_letters"]) == 1


def test_dead_letters_and_progress_are_metrics(stack: Stack) -> None:
    stack.status.report("waits", 1, chunk="chunked")
    stack.status.report("done", 1, chunk="chunked", index_vectors="indexed", index_graph="indexed")
    values = dict(line.rsplit(" ", 1) for line in stack.http.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(values['aegis_dead_letters{stage="chunk"}']) == 4
    assert float(values['aegis_dead_letters_oldest_seconds{stage="chunk"}']) == pytest.approx(60, abs=30)
    assert float(values['aegis_documents{state="indexed"}']) == 1
    assert 0 < float(values["aegis_oldest_unfinished_document_seconds"]) < 30


def test_stuck_documents_are_named() -> None:
    asked: list[tuple[float, int]] = []

    def stuck(older_than: float, limit: int) -> list[Stuck]:
        asked.append((older_than, limit))
        return [Stuck(document_id="d", state="unread", stage="chunk", since=1.0, topic="t", partition=2, offset=5)]

    def change(stack: Stack) -> None:
        stack.stuck = stuck

    with serving(change=change) as stack:
        found = stack.http.get("/api/v1/stuck", params={"older_than": 5, "limit": 3}).json()
        assert found["documents"][0]["offset"] == 5
        assert asked == [(5.0, 3)]
