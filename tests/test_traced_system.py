"""The whole system with its spans at a collector: one trace from the producer to both stores, and a search's own."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas import headers as names
from schemas.dead_letters import Filter
from schemas.topics import DOCUMENTS, retry_topic
from streams.dead_letters import DeadLetters
from streams.kafka import producer_configuration, send_now
from tests.otlp_collector import Collector, Seen
from tests.traced_system import TEXT, Traced, traced_system, traceparent

pytestmark = pytest.mark.integration

PHASES = ("embed", "retrieve", "graph", "rerank", "arrange")
ALL_STAGES = {"chunk", "embed", "extract", "index-vectors", "index-graph"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with traced_system(tmp_path_factory.mktemp("traced")) as running:
        yield running


def test_one_trace_from_the_producer_to_both_stores(running: Traced) -> None:
    trace_id, parent = traceparent(0xD0C)
    running.publish("letters", parent, text=TEXT)
    running.wait("letters")
    collector = running.collector
    collector.until(lambda: stages(collector.of(trace_id)) == ALL_STAGES and complete(collector, trace_id))
    spans = collector.of(trace_id)
    assert [span.parent_id for span in spans if span.kind == "SERVER"] == [f"{0xD0C:016x}"]
    assert unbroken(spans, root=f"{0xD0C:016x}")
    assert {span.attributes["db.system.name"] for span in spans if "db.system.name" in span.attributes} == {
        "qdrant-edge",
        "ladybug",
    }
    (send,) = [span for span in spans if span.kind == "PRODUCER"]
    assert send.attributes["messaging.destination.name"] == DOCUMENTS.name
    assert send.attributes["messaging.operation.type"] == "send"
    consumed = [span for span in spans if span.kind == "CONSUMER"]
    (chunk,) = [span for span in consumed if span.name == "chunk aegis.documents.v1"]
    position = ("messaging.destination.partition.id", "messaging.kafka.offset")
    assert [chunk.attributes[name] for name in position] == [send.attributes[name] for name in position]
    assert chunk.parent_id == send.span_id
    assert {span.service for span in spans} == {"aegis-node", "aegis-worker"}
    for span in consumed:
        ((batch_trace, batch_id),) = span.links
        collector.until(lambda wanted=batch_trace: bool(collector.of(wanted)))  # type: ignore[misc]
        (batch,) = collector.of(batch_trace)
        assert batch.span_id == batch_id
        assert (trace_id, span.parent_id) in batch.links


def test_a_retry_keeps_the_trace(running: Traced) -> None:
    """A record as a failed chunk stage leaves it: due now, once failed."""
    trace_id, parent = traceparent(0x4E7)
    headers = [
        (names.TRACEPARENT, parent.encode()),
        (names.ATTEMPT, b"1"),
        (names.STAGE, b"chunk"),
        (names.DUE_AT, b"0"),
    ]
    producer = Producer(producer_configuration(running.system.running.bootstrap_servers))
    value = b'{"document_id": "again", "text": "Herons wait."}'
    send_now(producer, retry_topic("chunk", "5s").name, b"again", value, headers)
    running.wait("again")
    collector = running.collector
    collector.until(lambda: stages(collector.of(trace_id)) == {*ALL_STAGES, "retry"} and complete(collector, trace_id))
    spans = collector.of(trace_id)
    assert unbroken(spans, root=f"{0x4E7:016x}")
    (moved,) = [span for span in spans if span.name == "retry aegis.chunk.retry.5s"]
    assert moved.attributes["messaging.consumer.group.name"] == "aegis-chunk-retry"
    assert [span.parent_id for span in spans if span.name.startswith("chunk ")] == [moved.span_id]


def test_a_dead_letter_and_its_replay_keep_the_trace(running: Traced) -> None:
    trace_id, parent = traceparent(0xDEAD)
    name = "late-blob"
    uri = f"{running.settings.blob_store_url()}/{name}"
    producer = Producer(producer_configuration(running.system.running.bootstrap_servers))
    value = f'{{"document_id": "late", "content_uri": "{uri}", "media_type": "text/plain"}}'.encode()
    send_now(producer, DOCUMENTS.name, b"late", value, [(names.TRACEPARENT, parent.encode())])
    running.wait("late", "dead-lettered")
    blobs = Path(running.settings.data_dir).resolve() / "blobs"
    blobs.mkdir(exist_ok=True)
    (blobs / name).write_text("The lighthouse keeper's logbook.")
    letters = DeadLetters(running.system.running.bootstrap_servers)
    assert len(list(letters.replay(Filter(document="late")))) == 1
    running.wait("late")
    collector = running.collector
    collector.until(lambda: stages(collector.of(trace_id)) == ALL_STAGES and complete(collector, trace_id))
    spans = collector.of(trace_id)
    assert unbroken(spans, root=f"{0xDEAD:016x}")
    first, second = (span for span in spans if span.name.startswith("chunk "))
    assert (first.failed, first.attributes["aegis.outcome"], first.events) == (
        True,
        "dead-lettered",
        ("exception",),
    )
    assert second.parent_id == first.span_id
    log = (running.settings.data_dir / "logs" / "worker.log").read_text().splitlines()
    (line,) = [line for line in log if '"dead-lettered"' in line]
    assert f'"trace_id": "{trace_id}"' in line
    assert '"correlation_id": "' in line


def test_a_search_has_a_trace_of_its_own(running: Traced) -> None:
    trace_id, parent = traceparent(0x5EA)
    running.search("Who wrote to Babbage?", parent)
    collector = running.collector
    collector.until(lambda: len(collector.of(trace_id)) == 1 + len(PHASES))
    server, *phases = collector.of(trace_id)
    assert (server.name, server.kind, server.parent_id) == ("POST /api/v1/search", "SERVER", f"{0x5EA:016x}")
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["aegis.request_id"] == "the-search"
    assert [span.name for span in phases] == [f"search {name}" for name in PHASES]
    assert {span.parent_id for span in phases} == {server.span_id}


def test_probes_are_not_traced(running: Traced) -> None:
    assert not [span for span in running.collector.spans if "/health" in span.name or "/metrics" in span.name]


def stages(spans: Sequence[Seen]) -> set[object]:
    return {span.attributes["messaging.operation.name"] for span in spans if span.kind == "CONSUMER"}


def complete(collector: Collector, trace_id: str) -> bool:
    """Every chunk has been through all of its stages, and every span's parent has come in."""
    spans = collector.of(trace_id)
    count = {stage: sum(span.name.startswith(f"{stage} ") for span in spans) for stage in ALL_STAGES - {"chunk"}}
    return (
        len(set(count.values())) == 1 and len({span.parent_id for span in spans} - {one.span_id for one in spans}) == 1
    )


def unbroken(spans: Sequence[Seen], *, root: str) -> bool:
    """Whether each span's parent is in the trace, but for the producer's own."""
    return {span.parent_id for span in spans} - {span.span_id for span in spans} == {root}
