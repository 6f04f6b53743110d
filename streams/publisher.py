"""The producer SDK: documents into the documents topic, idempotent, bounded, large content by claim check."""

import base64
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from opentelemetry.trace import Span, SpanKind
from pydantic import BaseModel

from processors.errors import UnavailableError
from schemas import headers as names
from schemas.headers import encoded
from schemas.ids import entity_pair_id
from schemas.records import Decision, DocumentRecord, Verdict
from schemas.settings import Settings
from schemas.topics import DOCUMENTS, EXTRACTIONS, named
from streams.blobs import Blobs
from streams.kafka import producer_configuration
from streams.security import rdkafka_security
from streams.tracing import context_headers, context_of, failed, messaging_span


@dataclass(frozen=True)
class Published:
    """What was published: ask for its status by id and version."""

    document_id: str
    version: int
    correlation_id: str


class Publisher:
    """Publishes documents. ``close`` (or leaving the ``with`` block) waits until the broker has all of them.

    Raises (publish and delete):
        UnavailableError: The broker has not taken what was sent before; nothing more is queued.
    """

    def __init__(self, bootstrap_servers: str, settings: Settings) -> None:
        self._producer = Producer(producer_configuration(bootstrap_servers) | rdkafka_security(settings.kafka))
        self._blobs = Blobs(settings.blob_store_url())
        self._max_record_bytes = settings.kafka.max_record_bytes
        self._extractions = named(EXTRACTIONS, settings.generation)
        self._lock = threading.Lock()
        self._last_version = 0
        self._failed: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def publish(
        self, document: DocumentRecord, *, correlation_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Published:
        """Send a document; returns before the broker has it (see ``flush``)."""
        version = self._next_version() if document.version is None else document.version
        stamped = document.model_copy(update={"version": version})
        return self._send(self._checked(stamped), correlation_id or str(uuid.uuid4()), headers or {})

    def publish_file(self, document_id: str, content: bytes, *, media_type: str, **fields: Any) -> Published:
        """Send a file's bytes as a document; ``fields`` are those of ``DocumentRecord``."""
        encoded_content = base64.b64encode(content).decode()
        return self.publish(
            DocumentRecord(document_id=document_id, content_base64=encoded_content, media_type=media_type, **fields)
        )

    def delete(self, document_id: str, *, version: int | None = None, correlation_id: str | None = None) -> Published:
        """Remove a document from both stores."""
        return self.publish(
            DocumentRecord(document_id=document_id, operation="delete", version=version), correlation_id=correlation_id
        )

    def decide(
        self, first: str, second: str, verdict: Verdict, reason: str, *, correlation_id: str | None = None
    ) -> Published:
        """Send what a person decided about two entities; what is published is named by the pair's id."""
        version, pair = self._next_version(), entity_pair_id(first, second)
        decision = Decision(first=first, second=second, verdict=verdict, reason=reason, version=version)
        correlation_id = correlation_id or str(uuid.uuid4())
        self._produce(self._extractions, pair, decision.model_dump_json().encode(), _headers(correlation_id))
        return Published(pair, version, correlation_id)

    def flush(self, *, timeout: float = 60.0) -> None:
        """Wait until the broker has everything.

        Raises:
            UnavailableError: It has not; the message names documents that were not published.
        """
        left = self._producer.flush(timeout)
        if left or self._failed:
            failed, self._failed = self._failed, []
            raise UnavailableError(f"{left + len(failed)} documents were not published: {'; '.join(failed[:5])}")

    def close(self) -> None:
        """Flush."""
        self.flush()

    def _next_version(self) -> int:
        """Milliseconds since the epoch, but never the same twice: two updates in one millisecond stay in order."""
        with self._lock:
            self._last_version = max(self._last_version + 1, int(time.time() * 1000))
            return self._last_version

    def _checked(self, document: DocumentRecord) -> DocumentRecord:
        """The document with its content in the blob store if the record would be too large."""
        size = len(document.text or "") + len(document.content_base64 or "")
        if size <= self._max_record_bytes and len(_value(document)) <= self._max_record_bytes:
            return document
        content = (
            document.text.encode() if document.text is not None else base64.b64decode(document.content_base64 or "")
        )
        moved = {"text": None, "content_base64": None, "content_uri": self._blobs.put(content)}
        return document.model_copy(update=moved)

    def _send(self, document: DocumentRecord, correlation_id: str, headers: Mapping[str, str]) -> Published:
        about = _cloud_event(document, correlation_id) | dict(headers)
        self._produce(DOCUMENTS.name, document.document_id, _value(document), about)
        return Published(document.document_id, document.version or 0, correlation_id)

    def _produce(self, topic: str, key: str, value: bytes, headers: Mapping[str, str]) -> None:
        span = _sending(topic, key, headers)
        while True:
            try:
                self._producer.produce(
                    topic,
                    key=key.encode(),
                    value=value,
                    headers=encoded({**headers, **context_headers(span)}),
                    on_delivery=partial(self._delivered, span),
                )
                break
            except BufferError:  # bounded: wait for the broker to take some
                if self._producer.poll(1.0) == 0 and self._failed:
                    self.flush(timeout=0)
        self._producer.poll(0)

    def _delivered(self, span: Span, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{(message.key() or b'?')!r}: {error}")
            failed(span, KafkaException(error))
        else:
            span.set_attribute("messaging.destination.partition.id", str(message.partition()))
            span.set_attribute("messaging.kafka.offset", message.offset() or 0)
        span.end()


def _value(model: BaseModel) -> bytes:
    return model.model_dump_json(exclude_none=True, exclude_defaults=True).encode()


def _sending(topic: str, key: str, headers: Mapping[str, str]) -> Span:
    """From queued to acknowledged: a child of the context in the producer's own headers, or else of the current one."""
    context = context_of(encoded(headers)) if names.TRACEPARENT in headers else None
    attributes = {"kafka.message.key": key, "message.conversation_id": headers.get(names.CORRELATION_ID, "")}
    return messaging_span("send", topic, context, attributes, kind=SpanKind.PRODUCER)


def _cloud_event(document: DocumentRecord, correlation_id: str) -> dict[str, str]:
    """CloudEvents 1.0 in Kafka's binary mode: https://github.com/cloudevents/spec (kafka-protocol-binding)."""
    return {
        "ce_specversion": "1.0",
        "ce_id": correlation_id,
        "ce_type": f"aegis.document.{document.operation}",
        "ce_source": document.source or "aegis",
        "ce_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    } | _headers(correlation_id)


def _headers(correlation_id: str) -> dict[str, str]:
    return {"content-type": "application/json", names.CORRELATION_ID: correlation_id}
