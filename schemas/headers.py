"""Record headers: their names, and how a record's headers become those of the records made from it."""

from collections.abc import Iterable, Mapping, Sequence

Headers = Sequence[tuple[str, bytes]]

CORRELATION_ID = "aegis-correlation-id"
ATTEMPT = "aegis-attempt"
FIRST_FAILED_AT = "aegis-first-failed-at"
DUE_AT = "aegis-due-at"
VERSION = "aegis-version"
SEQUENCE = "aegis-sequence"
STAGE = "aegis-stage"  # on a retried or replayed record: the only stage it is for, where two read one topic
REPROCESS = "aegis-reprocess"  # on a document's record: it is processed even where its content is indexed already
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

# Kafka Connect's names for what went wrong (KIP-298), so that its tools can read our dead-letter topics.
ERROR_PREFIX = "__connect.errors."
ERROR_TOPIC = ERROR_PREFIX + "topic"
ERROR_PARTITION = ERROR_PREFIX + "partition"
ERROR_OFFSET = ERROR_PREFIX + "offset"
ERROR_STAGE = ERROR_PREFIX + "stage"
ERROR_CLASS = ERROR_PREFIX + "exception.class.name"
ERROR_MESSAGE = ERROR_PREFIX + "exception.message"
ERROR_STACKTRACE = ERROR_PREFIX + "exception.stacktrace"

_CARRIED = (CORRELATION_ID, TRACEPARENT, TRACESTATE)
_OURS = (ATTEMPT, FIRST_FAILED_AT, DUE_AT, VERSION, SEQUENCE, STAGE)


def header(headers: Headers, name: str) -> str | None:
    """The last value of a header as text, or None."""
    values = [value for key, value in headers if key == name]
    return values[-1].decode("utf-8", "replace") if values and values[-1] is not None else None


def carried(headers: Headers) -> list[tuple[str, bytes]]:
    """The headers that follow a document through every topic."""
    return [(key, value) for key, value in headers if key in _CARRIED]


def with_headers(headers: Headers, added: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """``headers`` with ``added`` in place of any of the same name."""
    kept = [(key, value) for key, value in headers if key not in added]
    return kept + [(key, value.encode()) for key, value in added.items()]


def original(headers: Headers, *, keep: Iterable[str] = (VERSION, SEQUENCE)) -> list[tuple[str, bytes]]:
    """``headers`` without what a retry or dead letter added, but for what orders the record."""
    dropped = {name for name in _OURS if name not in set(keep)}
    return [(key, value) for key, value in headers if key not in dropped and not key.startswith(ERROR_PREFIX)]


def encoded(headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """Headers as Kafka takes them."""
    return [(key, value.encode()) for key, value in headers.items()]
