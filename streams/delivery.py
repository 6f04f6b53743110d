"""Where results and failures go: output topics, status topic, retry topics, dead-letter topic."""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from opentelemetry import trace
from pydantic import BaseModel
from pydantic_core import from_json

from processors.errors import PermanentError, PipelineError, UnavailableError
from schemas import headers as names
from schemas.headers import Headers, carried, header, original, with_headers
from schemas.records import Revision, StageName, State, StatusRecord
from schemas.settings import Settings
from schemas.topics import RETRY_DELAYS, SOURCES, STATUS, TARGETS, dead_letter_topic, named, retry_topic
from streams import metrics
from streams.breaker import Breaker
from streams.health import StageHealth
from streams.record import Record
from streams.stage import Outputs
from streams.tracing import ended, failed, span_of

log = structlog.get_logger()

# send(topic, key, value, headers) returns when the broker has acknowledged, or raises.
Send = Callable[[str, bytes | None, bytes | None, Headers], Awaitable[None]]

_MAX_OUTPUT = 2_900_000  # below the topics' limit of 3 MiB, with room for headers
_MAX_MESSAGE = 2_000
_MAX_STACKTRACE = 8_000


class TopicDelivery:
    """Delivers a stage's outcomes through ``send``; implements ``streams.stage.Delivery``."""

    def __init__(self, stage: StageName, send: Send, settings: Settings, health: StageHealth) -> None:
        self._stage = stage
        self._send = send
        self._retry = settings.retry
        self._generation = settings.generation
        self._health = health
        self._breaker = Breaker(settings.breaker)
        self._pauses = 0
        metrics.expose(stage, health)

    async def deliver(self, records: Sequence[Record], outputs: Sequence[Outputs]) -> None:
        """Send what became of ``records``; their carried headers go along."""
        if len(records) != len(outputs):
            raise AssertionError(f"{self._stage}: {len(outputs)} outputs for {len(records)} records")
        if records:
            delivered = await asyncio.gather(*map(self._deliver_one, records, outputs))
            self._breaker.passed(sum(delivered))
            self._recovered()
            metrics.RECORDS.labels(self._stage, "delivered").inc(sum(delivered))
            for record in records:
                ended(record.span, outcome="delivered")

    async def fail(self, record: Record, error: PipelineError) -> None:
        """Send to the next retry tier, or to the dead-letter topic."""
        self._recovered()
        delays = self._retry.delays
        dies = isinstance(error, PermanentError) or record.attempt >= len(delays)
        outcome = "dead-lettered" if dies else "retried"
        failed(record.span, error)
        with trace.use_span(span_of(record)):
            log.warning(
                outcome,
                stage=self._stage,
                document_id=record.document_id,
                correlation_id=record.correlation_id,
                error=str(error)[:_MAX_MESSAGE],
            )
            if dies:
                await self._dead_letter(record, error)
            else:
                await self._send_later(record, error, delays[record.attempt])
        ended(record.span, outcome=outcome)

    async def pause(self, error: UnavailableError) -> None:
        """Wait with exponential backoff; the stage is not ready meanwhile."""
        backoff = min(self._retry.pause_max, self._retry.pause_min * 2 ** min(self._pauses, 16))
        self._pauses += 1
        self._health.problem = str(error) or type(error).__name__
        trace.get_current_span().add_event("paused", {"error.message": self._health.problem or ""})
        deadline = time.monotonic() + (backoff if error.retry_after is None else error.retry_after)
        while (left := deadline - time.monotonic()) > 0:
            self._health.progressed()
            await asyncio.sleep(min(left, 1.0))

    async def stay_stopped(self) -> None:
        """Wait for ever once the breaker is open: nothing is acknowledged, readiness is red."""
        while self._breaker.is_open:
            self._health.progressed()
            await asyncio.sleep(1.0)

    def _recovered(self) -> None:
        self._health.progressed()
        self._pauses = 0
        self._health.problem = None

    async def _deliver_one(self, record: Record, outputs: Outputs) -> bool:
        """Send what became of one record; whether it could be sent."""
        values = [output.model_dump_json().encode() for output in outputs]
        if too_large := [len(value) for value in values if len(value) > _MAX_OUTPUT]:
            why = f"it becomes a record of {too_large[0]:,} bytes; the limit is {_MAX_OUTPUT:,}: shorten its metadata"
            await self.fail(record, PermanentError(why))
            return False
        await asyncio.gather(*(self._send_output(record, *pair) for pair in zip(outputs, values, strict=True)))
        return True

    async def _send_output(self, record: Record, output: BaseModel, value: bytes) -> None:
        if isinstance(output, StatusRecord):
            await self._send(named(STATUS, self._generation), status_key(output), value, carried(record.headers))
        else:
            added = {names.CORRELATION_ID: record.correlation_id}
            target = named(TARGETS[self._stage], self._generation)
            await self._send(target, record.key, value, with_headers(carried(record.headers), added))

    async def _send_later(self, record: Record, error: PipelineError, delay: str) -> None:
        due = int((time.time() + RETRY_DELAYS[delay].total_seconds()) * 1000)
        added = self._failed(record) | {names.DUE_AT: str(due), names.STAGE: self._stage}
        topic = named(retry_topic(self._stage, delay), self._generation)
        await self._send(topic, record.key, record.value, with_headers(record.headers, added))
        await self._report(record, "retrying", f"{error} (attempt {record.attempt + 1}, again in {delay})")
        self._health.retried += 1
        metrics.RECORDS.labels(self._stage, "retried").inc()

    async def _dead_letter(self, record: Record, error: PipelineError) -> None:
        cause = error.__cause__ or error
        stacktrace = "".join(traceback.format_exception(cause))
        added = self._failed(record) | {
            names.ERROR_TOPIC: record.topic,
            names.ERROR_PARTITION: str(record.partition),
            names.ERROR_OFFSET: str(record.offset),
            names.ERROR_STAGE: self._stage,
            names.ERROR_CLASS: type(cause).__name__,
            names.ERROR_MESSAGE: str(error)[:_MAX_MESSAGE],
            names.ERROR_STACKTRACE: stacktrace[-_MAX_STACKTRACE:],
        }
        topic = named(dead_letter_topic(self._stage), self._generation)
        await self._send(topic, record.key, record.value, with_headers(original(record.headers), added))
        await self._report(record, "dead-lettered", str(error))
        self._health.dead_lettered += 1
        metrics.RECORDS.labels(self._stage, "dead-lettered").inc()
        self._breaker.dead_lettered()
        if self._breaker.is_open:
            self._health.tripped = self._breaker.reason

    def _failed(self, record: Record) -> dict[str, str]:
        added = {
            names.ATTEMPT: str(record.attempt + 1),
            names.FIRST_FAILED_AT: header(record.headers, names.FIRST_FAILED_AT) or str(int(time.time() * 1000)),
            names.CORRELATION_ID: record.correlation_id,
        }
        if record.topic == SOURCES["chunk"].name:  # its position is its revision; keep it wherever it goes
            revision = record.revision()
            added |= {names.VERSION: str(revision.version), names.SEQUENCE: str(revision.sequence)}
        return added

    async def _report(self, record: Record, state: State, reason: str) -> None:
        document_id = record.document_id
        if not document_id or _written(record.value).get("kind") == "decision":  # which is about no document
            return
        revision = _revision(record)
        status = StatusRecord.model_construct(
            document_id=document_id,
            version=revision.version,
            sequence=revision.sequence,
            stage=self._stage,
            state=state,
            at=time.time(),
            error=reason[:_MAX_MESSAGE],
        )
        await self._send(
            named(STATUS, self._generation),
            status_key(status),
            status.model_dump_json().encode(),
            carried(record.headers),
        )


def status_key(status: StatusRecord) -> bytes:
    """Compaction keeps the newest status of every document and stage."""
    return f"{status.stage}/{status.document_id}".encode()


def _revision(record: Record) -> Revision:
    if record.topic == SOURCES["chunk"].name:
        return record.revision(_written_version(record.value))
    written = _written(record.value)
    chunk = written.get("chunk", written)
    try:
        return Revision(int(chunk["version"]), int(chunk.get("sequence", 0)))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Revision(record.timestamp, 0)


def _written_version(value: bytes | None) -> int | None:
    version = _written(value).get("version")
    return version if isinstance(version, int) and version >= 0 else None


def _written(value: bytes | None) -> dict[str, Any]:
    try:
        written = from_json(value or b"")
    except ValueError:
        return {}
    return written if isinstance(written, dict) else {}
