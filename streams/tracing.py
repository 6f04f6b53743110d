"""Spans of the stream, by OpenTelemetry's messaging conventions; without a configured SDK all of this is no-ops.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas import headers as names
from schemas.headers import Headers, header, with_headers
from schemas.records import StageName
from schemas.topics import SOURCES, group_of, named
from streams.record import Record

Attribute = str | int | bool
Attributes = Mapping[str, Attribute]
Links = Sequence[Link]

tracer = trace.get_tracer("aegis.streams")
_W3C = TraceContextTextMapPropagator()
_documents: ContextVar[Mapping[str, Span]] = ContextVar("_documents")


def context_of(headers: Headers) -> Context:
    """The context that headers came from; empty where they name none, or none that can be read."""
    found = {name: header(headers, name) for name in (names.TRACEPARENT, names.TRACESTATE)}
    return _W3C.extract({name: value for name, value in found.items() if value})


def context_headers(span: Span) -> dict[str, str]:
    """What names ``span`` as the parent of whatever is made of a record; empty where there is no trace."""
    carrier: dict[str, str] = {}
    if span.get_span_context().is_valid:
        _W3C.inject(carrier, trace.set_span_in_context(span))
    return carrier


def messaging_span(
    operation: str,
    topic: str,
    context: Context | None,
    attributes: Attributes,
    *,
    kind: SpanKind = SpanKind.CONSUMER,
    links: Links = (),
) -> Span:
    """A span that is not current; ``attributes`` are named without ``messaging.`` before them."""
    of_every_span = {
        "system": "kafka",
        "operation.name": operation,
        "operation.type": "send" if kind is SpanKind.PRODUCER else "process",
        "destination.name": topic,
    }
    named = {f"messaging.{name}": value for name, value in (of_every_span | dict(attributes)).items()}
    return tracer.start_span(f"{operation} {topic}", context, kind=kind, attributes=named, links=links)


def in_span(record: Record, operation: str, group: str, *, links: Links = ()) -> Record:
    """``record`` in a span of its processing, a child of the context that it came with and now the one it carries."""
    attributes = {
        "consumer.group.name": group,
        "message.body.size": len(record.value or b""),
        "message.conversation_id": record.correlation_id,
        "kafka.message.key": record.document_id or "",
        **_position(record),
    }
    if record.value is None:
        attributes["kafka.message.tombstone"] = True
    span = messaging_span(operation, record.topic, context_of(record.headers), attributes, links=links)
    if span.get_span_context() == _came_from(record):  # no SDK: what came is passed on as it is, to the byte
        return record
    return replace(record, span=span, headers=with_headers(record.headers, context_headers(span)))


def _position(record: Record) -> dict[str, Attribute]:
    return {"destination.partition.id": str(record.partition), "kafka.offset": record.offset}


def _came_from(record: Record) -> SpanContext:
    return trace.get_current_span(context_of(record.headers)).get_span_context()


def span_of(record: Record) -> Span:
    """That of its processing, or without an SDK the one that it came from, so that lines of the log name its trace."""
    return (
        record.span if record.span.get_span_context().is_valid else trace.get_current_span(context_of(record.headers))
    )


@contextmanager
def batch_spans(stage: StageName, records: Sequence[Record], *, generation: str = "") -> Iterator[list[Record]]:
    """A trace of the micro-batch, with a link to each record's context; gives the records in spans of their own.

    A record's span ends with its outcome (``ended``), at the latest with the batch.
    """
    group, source = group_of(stage, generation), named(SOURCES[stage], generation)
    attributes: Attributes = {"consumer.group.name": group, "batch.message_count": len(records)}
    batch = messaging_span(f"{stage} batch", source, Context(), attributes)
    if not batch.get_span_context().is_valid:  # no SDK
        yield list(records)
        return
    for record in records:
        if (context := _came_from(record)).is_valid:
            batch.add_link(context, {f"messaging.{name}": value for name, value in _position(record).items()})
    spanned = [in_span(record, stage, group, links=[Link(batch.get_span_context())]) for record in records]
    token = _documents.set({record.document_id: record.span for record in spanned if record.document_id is not None})
    try:
        with trace.use_span(batch, end_on_exit=True):
            yield spanned
    finally:
        _documents.reset(token)
        for record in spanned:
            ended(record.span)


def ended(span: Span, *, outcome: str | None = None) -> None:
    """End a span once, with what became of its record."""
    if span.is_recording():
        if outcome is not None:
            span.set_attribute("aegis.outcome", outcome)
        span.end()


def failed(span: Span, error: BaseException) -> None:
    """Note what went wrong; the span goes on."""
    if span.is_recording():
        span.record_exception(error)
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR, str(error))


@contextmanager
def store_spans(system: str, operation: str, chunks: Mapping[str, int]) -> Iterator[None]:
    """A span of a write for each document, in that document's trace; ``chunks`` counts what is written of each."""
    parents = _documents.get({})
    spans = [
        tracer.start_span(
            f"{operation} {system}",
            trace.set_span_in_context(parents[document_id]),
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": system,
                "db.operation.name": operation,
                "db.operation.batch.size": count,
                "aegis.document_id": document_id,
            },
        )
        for document_id, count in chunks.items()
        if document_id in parents
    ]
    try:
        yield
    except Exception as error:
        for span in spans:
            failed(span, error)
        raise
    finally:
        for span in spans:
            span.end()
