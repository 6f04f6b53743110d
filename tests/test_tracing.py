"""Traces: what a stage's spans are and carry, and that without an SDK nothing changes."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

import api.tracing
import streams.tracing
from deploy.logs import configure_logs
from deploy.tracing import traced
from processors.errors import PermanentError, TransientError
from schemas import headers as names
from schemas.headers import Headers, header
from schemas.records import Extraction, Mark, Revision, StageName
from schemas.settings import Batch, Settings
from schemas.topics import SOURCES
from streams.delivery import TopicDelivery
from streams.health import StageHealth
from streams.record import Record
from streams.sinks.index import Head
from streams.sinks.traced import TracedStore
from streams.stage import Outputs, Stage, handle
from streams.tracing import batch_spans, in_span, span_of
from tests.api_server import serving
from tests.traced_system import traceparent

Sent = list[tuple[str, bytes | None, Headers]]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of streams and API of this process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for module in (streams.tracing, api.tracing):
        monkeypatch.setattr(module, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def record_of(number: int, headers: Headers = (), *, stage: StageName = "embed") -> Record:
    return Record(SOURCES[stage].name, 2, number, 0, f"doc-{number}".encode(), str(number).encode(), headers)


def traced_record(number: int) -> Record:
    return record_of(number, ((names.TRACEPARENT, traceparent(number + 1)[1].encode()), ("theirs", b"\xff")))


def run_batch(records: Sequence[Record], failures: Mapping[int, Exception]) -> Sent:
    """A batch through the loop and the delivery of a real stage; what was sent where."""
    sent: Sent = []

    async def send(topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        sent.append((topic, key, headers))

    def process(items: Sequence[int]) -> list[Outputs]:
        for item in items:
            if item in failures:
                raise failures[item]
        return [[Mark(document_id=f"doc-{item}", version=item, operation="delete")] for item in items]

    async def run() -> None:
        delivery = TopicDelivery("embed", send, Settings(), StageHealth("embed", problem=None))
        stage: Stage[int] = Stage("embed", Batch(max_records=8, max_wait=0), lambda one: int(one.value or b""), process)
        with ThreadPoolExecutor(1) as executor, batch_spans("embed", records) as spanned:
            await handle(stage, spanned, delivery, executor)

    asyncio.run(run())
    return sent


def by_offset(exporter: InMemorySpanExporter) -> tuple[dict[Any, ReadableSpan], ReadableSpan]:
    """The spans of records by their offset, and the batch's."""
    spans = exporter.get_finished_spans()
    (batch,) = [span for span in spans if span.name.startswith("embed batch")]
    return {(span.attributes or {})["messaging.kafka.offset"]: span for span in spans if span is not batch}, batch


def test_each_record_has_a_span_below_the_context_it_came_with(exported: InMemorySpanExporter) -> None:
    run_batch([*map(traced_record, range(3)), record_of(3)], {})
    spans, batch = by_offset(exported)
    for number in range(3):
        parent = spans[number].parent
        assert parent is not None
        assert format_trace_id(parent.trace_id) == traceparent(number + 1)[0]
        assert parent.span_id == number + 1
    assert spans[3].parent is None
    attributes = dict(spans[1].attributes or {})
    assert spans[1].name == "embed aegis.chunks.v1"
    assert spans[1].kind is trace.SpanKind.CONSUMER
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "embed",
        "messaging.operation.type": "process",
        "messaging.destination.name": "aegis.chunks.v1",
        "messaging.destination.partition.id": "2",
        "messaging.consumer.group.name": "aegis-embed",
        "messaging.kafka.offset": 1,
        "messaging.kafka.message.key": "doc-1",
        "messaging.message.body.size": 1,
        "messaging.message.conversation_id": "aegis.chunks.v1-2-1",
        "aegis.outcome": "delivered",
    }
    assert [link.context.trace_id for link in batch.links] == [1, 2, 3]
    assert (batch.attributes or {})["messaging.batch.message_count"] == 4
    assert batch.parent is None
    assert {link.context.span_id for span in spans.values() for link in span.links} == {batch.context.span_id}


def test_what_a_record_becomes_carries_its_span(exported: InMemorySpanExporter) -> None:
    """Results, retries and dead letters; also where the record came without a context."""
    sent = run_batch(
        [traced_record(0), traced_record(1), record_of(2), traced_record(3)],
        {1: PermanentError("broken"), 2: TransientError("later")},
    )
    spans, _ = by_offset(exported)
    for topic, key, headers in sent:
        span = spans[int((key or b"").rpartition(b"-")[2])]
        ids = [format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)]
        (carried,) = [value.decode() for name, value in headers if name == names.TRACEPARENT]
        assert carried.split("-")[1:3] == ids, topic
    assert {topic for topic, _, _ in sent} == {
        "aegis.embeddings.v1",
        "aegis.status.v1",
        "aegis.embed.dlq",
        "aegis.embed.retry.5s",
    }
    outcomes = {number: (span.attributes or {})["aegis.outcome"] for number, span in spans.items()}
    assert outcomes == {0: "delivered", 1: "dead-lettered", 2: "retried", 3: "delivered"}
    assert {number for number, span in spans.items() if span.status.status_code is StatusCode.ERROR} == {1, 2}
    (failed,) = [event for event in spans[1].events if event.name == "exception"]
    assert (failed.attributes or {})["exception.message"] == "broken"


_context_headers = st.lists(
    st.tuples(
        st.sampled_from(["traceparent", "tracestate", "theirs"]),
        st.binary(max_size=80) | st.from_regex(rb"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"),
    ),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(_context_headers)
def test_without_an_sdk_headers_are_passed_on_to_the_byte(headers: list[tuple[str, bytes]]) -> None:
    records = [record_of(0, headers), record_of(1)]
    with batch_spans("embed", records) as spanned:
        assert [record.headers for record in spanned] == [headers, ()]
        assert spanned == records


@settings(max_examples=40, deadline=None)
@given(_context_headers)
def test_whatever_is_in_the_headers_there_is_one_readable_context_after(headers: list[tuple[str, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams.tracing, "tracer", TracerProvider(shutdown_on_exit=False).get_tracer("test"))
        record = in_span(record_of(0, headers), "embed", "group")
    assert [name for name, _ in record.headers].count("traceparent") == 1
    span_id = format_span_id(record.span.get_span_context().span_id)
    assert (header(record.headers, names.TRACEPARENT) or "").split("-")[2] == span_id
    assert [pair for pair in record.headers if pair[0] == "theirs"] == [pair for pair in headers if pair[0] == "theirs"]


def test_a_cancelled_batch_ends_its_spans_without_an_outcome(exported: InMemorySpanExporter) -> None:
    with pytest.raises(asyncio.CancelledError), batch_spans("embed", [traced_record(0)]):
        raise asyncio.CancelledError
    spans, _ = by_offset(exported)
    assert "aegis.outcome" not in (spans[0].attributes or {})


class FailingStore:
    """A store that holds nothing, and cannot erase."""

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        return {}

    def held(self, document_id: str, revision: Revision) -> int:
        return 0

    def write(self, heads: Mapping[str, Head], items: Sequence[Extraction], *, live: bool) -> None:
        pass

    def make_live(self, document_id: str, revision: Revision) -> None:
        pass

    def erase(self, document_id: str) -> None:
        raise TransientError("disk")

    def close(self) -> None:
        pass


def test_a_write_is_in_the_trace_of_each_document(exported: InMemorySpanExporter) -> None:
    store: TracedStore[Extraction] = TracedStore(FailingStore(), "ladybug")
    records = [traced_record(0), traced_record(1), record_of(1)]
    chunk_of_0: Any = SimpleNamespace(chunk=SimpleNamespace(document_id="doc-0"))
    with batch_spans("embed", records) as spanned:
        store.write({"doc-1": Head(Revision(1, 1))}, [chunk_of_0, chunk_of_0], live=True)
        with pytest.raises(TransientError):
            store.erase("doc-1")
    writes = [span for span in exported.get_finished_spans() if span.name.endswith("ladybug")]
    parents = [(span.name, span.parent.span_id if span.parent else None) for span in writes]
    zero, last_of_1 = (spanned[position].span.get_span_context().span_id for position in (0, 2))
    assert sorted(parents) == sorted(
        [("upsert ladybug", zero), ("upsert ladybug", last_of_1), ("erase ladybug", last_of_1)]
    )
    assert [(span.attributes or {})["db.operation.batch.size"] for span in writes if span.name[0] == "u"] == [0, 2]
    assert [span.name for span in writes if span.status.status_code is StatusCode.ERROR] == ["erase ladybug"]


@pytest.mark.parametrize(
    ("environment", "wrong"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    ],
)
def test_what_cannot_be_exported_is_said_at_start(environment: dict[str, str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        traced("node", environment).__enter__()


def test_off_loads_no_sdk_and_on_ends_in_time() -> None:
    """Nor where the variables say so. Where they ask for it, the end waits for no collector that hangs."""
    program = """
import os, socket, sys, threading
import deploy.tracing
from deploy.tracing import traced
import streams.tracing
hangs = socket.create_server(("127.0.0.1", 0))
endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{hangs.getsockname()[1]}"}
for environment in ({}, endpoint | {"OTEL_SDK_DISABLED": "true"}, endpoint | {"OTEL_TRACES_EXPORTER": "none"}):
    with traced("node", environment):
        assert not streams.tracing.tracer.start_span("x").is_recording()
assert not [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
os.environ.update(endpoint)
deploy.tracing._LAST_EXPORT = 0.2
with traced("node", os.environ):
    span = streams.tracing.tracer.start_span("x")
    assert span.is_recording()
    assert span.resource.attributes["service.name"] == "aegis-node"
    span.end()
assert "last-spans" in {thread.name for thread in threading.enumerate()}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_lines_of_a_span_name_its_trace(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings())
    try:
        with trace.use_span(span_of(traced_record(6))):
            structlog.get_logger().warning("inside")
        structlog.get_logger().warning("outside")
    finally:
        structlog.reset_defaults()
    inside, outside = capfd.readouterr().err.splitlines()
    assert f'"trace_id": "{7:032x}"' in inside
    assert "trace_id" not in outside


def test_phases_of_a_search_are_spans(exported: InMemorySpanExporter) -> None:
    with serving() as stack:
        stack.http.post("/api/v1/search", json={"query": "leave"}).raise_for_status()
    assert [span.name for span in exported.get_finished_spans()] == [
        f"search {phase}" for phase in ("embed", "retrieve", "graph", "rerank", "arrange")
    ]
