"""Retry tiers, dead letters and the breaker, with the sends recorded."""

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import REGISTRY

from processors.errors import PermanentError, TransientError
from schemas import headers as names
from schemas.headers import Headers, header, original
from schemas.records import Mark, StageName
from schemas.settings import Settings
from streams.delivery import TopicDelivery
from streams.health import StageHealth
from streams.record import Record

HEADERS: Headers = (("ce_id", b"42"), ("traceparent", b"00-1-2-01"), ("theirs", b"\xff\x00"))


class Sent:
    def __init__(self, stage: StageName = "chunk", **settings: Any) -> None:
        self.records: list[tuple[str, bytes | None, bytes | None, Headers]] = []
        self.health = StageHealth(stage, problem=None)
        self.delivery = TopicDelivery(stage, self._send, Settings(**settings), self.health)

    async def _send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.records.append((topic, key, value, headers))

    def on(self, topic: str) -> list[tuple[str, bytes | None, bytes | None, Headers]]:
        return [record for record in self.records if record[0] == topic]


def document(headers: Headers = HEADERS) -> Record:
    return Record("aegis.documents.v1", 3, 17, 1234, b"doc", b"\x00not json", headers)


def test_a_dead_letter_is_byte_identical_and_says_why() -> None:
    sent = Sent()
    asyncio.run(sent.delivery.fail(document(), PermanentError("the PDF is encrypted")))
    (_, key, value, headers) = sent.on("aegis.chunk.dlq")[0]
    assert (key, value) == (b"doc", b"\x00not json")
    assert [pair for pair in headers if pair in HEADERS] == list(HEADERS)
    said = {name: header(headers, names.ERROR_PREFIX + name) for name in ("topic", "partition", "offset", "stage")}
    assert said == {"topic": "aegis.documents.v1", "partition": "3", "offset": "17", "stage": "chunk"}
    assert header(headers, names.ERROR_MESSAGE) == "the PDF is encrypted"
    assert header(headers, names.ERROR_CLASS) == "PermanentError"
    assert header(headers, names.ATTEMPT) == "1"
    status = json.loads(sent.on("aegis.status.v1")[0][2] or b"")
    assert (status["state"], status["error"], status["version"]) == ("dead-lettered", "the PDF is encrypted", 1234)


def test_a_replayed_dead_letter_keeps_its_place_in_the_order() -> None:
    sent = Sent()
    asyncio.run(sent.delivery.fail(document(), PermanentError("x")))
    replayed = original(sent.on("aegis.chunk.dlq")[0][3])
    again = Record("aegis.documents.v1", 3, 900, 999_999, b"doc", b"", replayed)
    assert again.revision() == document().revision()
    assert again.attempt == 0
    assert not any(name.startswith(names.ERROR_PREFIX) for name, _ in replayed)


def test_transient_failures_pass_every_tier_and_then_are_dead_lettered() -> None:
    sent, record, topics = Sent(), document(), []
    for _ in range(4):
        asyncio.run(sent.delivery.fail(record, TransientError("try again")))
        topic, _, _, headers = next(one for one in reversed(sent.records) if one[0] != "aegis.status.v1")
        topics.append(topic)
        record = document(headers)
    assert topics == ["aegis.chunk.retry.5s", "aegis.chunk.retry.1m", "aegis.chunk.retry.10m", "aegis.chunk.dlq"]
    assert record.attempt == 4
    assert header(sent.on("aegis.chunk.retry.5s")[0][3], names.STAGE) == "chunk"


def test_a_retried_record_is_for_the_stage_that_failed_alone() -> None:
    retried = document((*HEADERS, (names.STAGE, b"embed")))
    assert (retried.is_for("embed"), retried.is_for("extract")) == (True, False)
    assert document().is_for("extract")


def test_outputs_go_to_the_stages_topic_with_the_carried_headers_only() -> None:
    sent = Sent("embed")
    mark = Mark(document_id="doc", version=1, operation="delete")
    record = Record("aegis.chunks.v1", 0, 0, 0, b"doc", b"", (*HEADERS, ("aegis-correlation-id", b"abc")))
    asyncio.run(sent.delivery.deliver([record], [[mark]]))
    ((topic, key, _, headers),) = sent.records
    assert (topic, key) == ("aegis.embeddings.v1", b"doc")
    assert dict(headers) == {"aegis-correlation-id": b"abc", "traceparent": b"00-1-2-01"}


def test_an_output_too_large_for_its_topic_is_dead_lettered_and_the_others_pass() -> None:
    sent = Sent("embed")
    small = Mark(document_id="doc", version=1, operation="delete")
    large = small.model_copy(update={"content_hash": "x" * 3_000_000})
    asyncio.run(sent.delivery.deliver([document(), document()], [[large], [small]]))
    assert len(sent.on("aegis.embeddings.v1")) == 1
    assert "the limit is" in (header(sent.on("aegis.embed.dlq")[0][3], names.ERROR_MESSAGE) or "")


@pytest.mark.parametrize(
    ("breaker", "dead", "opens"),
    [
        ({"consecutive": 5}, 4, False),
        ({"consecutive": 5}, 5, True),
        ({"consecutive": 1000, "ratio": 0.5, "window": 10}, 9, False),
        ({"consecutive": 1000, "ratio": 0.5, "window": 10}, 10, True),
    ],
)
def test_the_breaker_opens_on_too_many_dead_letters(breaker: dict[str, Any], dead: int, opens: bool) -> None:
    sent = Sent(breaker=breaker)
    for _ in range(dead):
        asyncio.run(sent.delivery.fail(document(), PermanentError("x")))
    assert (sent.health.tripped is not None) == opens
    assert sent.health.is_ready == (not opens)


def test_successes_between_dead_letters_keep_the_breaker_closed() -> None:
    sent = Sent(breaker={"consecutive": 3})
    mark = Mark(document_id="doc", version=1, operation="delete")
    for _ in range(10):
        asyncio.run(sent.delivery.fail(document(), PermanentError("x")))
        asyncio.run(sent.delivery.fail(document(), PermanentError("x")))
        asyncio.run(sent.delivery.deliver([document()], [[mark]]))
    assert sent.health.is_ready


def test_a_decision_that_fails_is_no_documents_status() -> None:
    sent = Sent("index-graph")
    decision = Record("aegis.extractions.v1", 0, 1, 1234, b"pair", b'{"kind": "decision", "version": 1}')
    asyncio.run(sent.delivery.fail(decision, PermanentError("x")))
    assert [record[0] for record in sent.records] == ["aegis.index-graph.dlq"]


def test_a_stage_is_in_the_metrics_before_its_first_record() -> None:
    sent = Sent("index-graph")
    for outcome in ("delivered", "retried", "dead-lettered"):
        assert sample("aegis_records_total", outcome=outcome) is not None
    assert (sample("aegis_stage_ready"), sample("aegis_breaker_open")) == (1, 0)
    sent.health.problem = "the store is away"
    assert (sample("aegis_stage_ready"), sample("aegis_breaker_open")) == (0, 0)
    sent.health.tripped = "200 dead letters in a row"
    assert sample("aegis_breaker_open") == 1


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"stage": "index-graph", **labels})
