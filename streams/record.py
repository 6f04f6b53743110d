"""A Kafka record as a stage reads it, and what its position and headers say of the document's revision."""

from dataclasses import dataclass, field

from opentelemetry.trace import INVALID_SPAN, Span

from schemas import headers as names
from schemas.headers import Headers, header
from schemas.records import Revision, StageName


@dataclass(frozen=True)
class Record:
    """One record of a topic; ``timestamp`` is in milliseconds since the epoch, ``span`` that of its processing."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    span: Span = field(default=INVALID_SPAN, compare=False, repr=False)

    @property
    def document_id(self) -> str | None:
        """The key as text: every record of this system is keyed by its document's id."""
        return self.key.decode("utf-8", "replace") if self.key is not None else None

    @property
    def correlation_id(self) -> str:
        """Follows a document through every topic and log line."""
        return (
            header(self.headers, names.CORRELATION_ID)
            or header(self.headers, "ce_id")
            or f"{self.topic}-{self.partition}-{self.offset}"
        )

    @property
    def attempt(self) -> int:
        """How often the record has failed before."""
        return _number(header(self.headers, names.ATTEMPT)) or 0

    @property
    def due_at(self) -> int:
        """When a record of a retry topic is due, in milliseconds since the epoch."""
        return _number(header(self.headers, names.DUE_AT)) or 0

    def is_for(self, stage: StageName) -> bool:
        """Whether the stage is meant: embed and extract read one topic, but not each other's retries and replays."""
        return header(self.headers, names.STAGE) in (None, stage)

    def revision(self, version: int | None = None) -> Revision:
        """The document's revision that this record of the documents topic makes.

        A retried or replayed record keeps the version and sequence of its first reading, in its headers.
        """
        kept_version = _number(header(self.headers, names.VERSION))
        kept_sequence = _number(header(self.headers, names.SEQUENCE))
        return Revision(
            version if version is not None else self.timestamp if kept_version is None else kept_version,
            self.offset if kept_sequence is None else kept_sequence,
        )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
