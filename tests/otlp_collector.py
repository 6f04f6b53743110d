"""A collector of traces: takes OTLP over HTTP, keeps the spans, tells their trees."""

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Exported
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.waiting import until


@dataclass(frozen=True)
class Seen:
    """A span as it was exported; times in nanoseconds since the epoch."""

    name: str
    service: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, object]
    links: tuple[tuple[str, str], ...]
    events: tuple[str, ...]


@dataclass
class Collector:
    """What has come in so far."""

    url: str
    spans: list[Seen] = field(default_factory=list)

    def of(self, trace_id: str) -> list[Seen]:
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start)

    def until(self, enough: Callable[[], bool]) -> None:
        until(enough, what=lambda: [span.name for span in self.spans])


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector("")

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            collector.spans.extend(_seen(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()


def _seen(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        service = next(pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _span(service, span)


def _span(service: str, span: Exported) -> Seen:
    return Seen(
        name=span.name,
        service=service,
        kind=Exported.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        attributes={pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes},
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        events=tuple(event.name for event in span.events),
    )


def tree(spans: Sequence[Seen]) -> str:
    """One line per span below its parent: offset and duration in ms, service, name, what became of it."""
    known = {span.span_id for span in spans}
    start = min(span.start for span in spans)
    lines: list[str] = []

    def add(span: Seen, depth: int) -> None:
        outcome = span.attributes.get("aegis.outcome") or span.attributes.get("http.response.status_code") or ""
        group = str(span.attributes.get("messaging.consumer.group.name", ""))
        links = f"links {len(span.links)}" if span.links else ""
        words = [f"{'  ' * depth}{span.name}", f"[{span.service}]", group, str(outcome), links]
        times = f"{(span.start - start) / 1e6:8.1f} +{(span.end - span.start) / 1e6:7.1f} ms"
        lines.append(f"{times}  {' '.join(word for word in words if word)}{'  ERROR' if span.failed else ''}")
        for child in sorted((one for one in spans if one.parent_id == span.span_id), key=lambda one: one.start):
            add(child, depth + 1)

    for root in sorted((span for span in spans if span.parent_id not in known), key=lambda one: one.start):
        add(root, 0)
    stores = sorted({str(span.attributes["db.system.name"]) for span in spans if "db.system.name" in span.attributes})
    links = sum(len(span.links) for span in spans)
    services = Counter(span.service for span in spans)
    summary = f"{len(spans)} spans of {len(services)} services, {links} links, stores: {', '.join(stores) or 'none'}"
    return "\n".join([*lines, summary])
