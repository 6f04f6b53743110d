"""What is added to FastAPI's own span of a request: which requests have one, and a span for each of its phases."""

import time
from collections.abc import Mapping

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

TELEMETRY = TelemetryConfig(
    metrics=False,  # api.metrics has them
    logs=False,
    operation_spans=False,
    auto_configure=False,  # deploy.tracing does it for the whole process
    exclude=lambda scope: scope["path"].startswith(("/health", "/metrics")),  # probes, every few seconds
)
tracer = trace.get_tracer("aegis.api")


def record_phase(phase: str, began_ns: int, candidates: Mapping[str, int] | None = None) -> int:
    """Record a phase that has just ended as a child of the request's span; returns when (ns since the epoch)."""
    ended_ns = time.time_ns()
    attributes = {f"aegis.candidates.{score}": count for score, count in (candidates or {}).items()}
    tracer.start_span(phase, attributes=attributes, start_time=began_ns).end(ended_ns)
    return ended_ns
