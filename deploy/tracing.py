"""Traces leave the process by OTLP over HTTP, if OpenTelemetry's own variables say where to; else nothing is loaded.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_LAST_EXPORT = 5.0  # seconds; a collector that hangs holds up no worker's end


@contextmanager
def traced(name: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Export the spans of this process as those of the service ``aegis-<name>``, if ``environment`` asks for it.

    Raises:
        ValueError: It asks for an exporter or a protocol that is not installed.
    """
    if not _is_wanted(environment):
        yield
        return
    end = _start(name)
    try:
        yield
    finally:
        ending = threading.Thread(target=end, name="last-spans", daemon=True)
        ending.start()
        ending.join(_LAST_EXPORT)


def _start(name: str) -> Callable[[], None]:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({"service.name": f"aegis-{name}", "service.namespace": "aegis"})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER") or (
        "otlp" if any(environment.get(endpoint) for endpoint in _ENDPOINTS) else "none"
    )
    if exporter not in ("otlp", "none"):
        raise ValueError(f"OTEL_TRACES_EXPORTER is {exporter!r}; this system exports by otlp, or none")
    for protocol in _PROTOCOLS:
        if exporter == "otlp" and environment.get(protocol, "http/protobuf") != "http/protobuf":
            raise ValueError(f"{protocol} is {environment[protocol]!r}; this system speaks http/protobuf (port 4318)")
    return exporter == "otlp"
