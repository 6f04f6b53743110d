"""Structured logs: JSON lines on standard error, readable colours on a terminal."""

import logging
import sys

import structlog
from opentelemetry import trace

from schemas.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set up structlog, and the libraries' own logging from warnings on."""
    level = getattr(logging, settings.log_level.upper())
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    formatter = structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    to_standard_error = logging.StreamHandler(sys.stderr)
    to_standard_error.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[to_standard_error], force=True)
    # Faust's monitor warns of every stream that has been idle for a while.
    logging.getLogger("faust.transport.drivers.aiokafka").setLevel(logging.ERROR)


def _add_trace(logger: object, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Where there is a trace, so that its lines are found from it and it from them."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        line["trace_id"] = trace.format_trace_id(context.trace_id)
        line["span_id"] = trace.format_span_id(context.span_id)
    return line
