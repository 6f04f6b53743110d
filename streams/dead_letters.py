"""Dead letters: list, show, replay, drop.

A dead letter stays in its topic until it is resolved; a resolution is a record of its own, keyed by the dead letter's
position. Once everything before an offset is resolved, the topic is cut there.
"""

import time
from collections.abc import Iterator
from typing import Literal

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import headers as names
from schemas.dead_letters import Backlog, DeadLetter, Filter, stage_of
from schemas.headers import header, original, with_headers
from schemas.records import STAGES, StageName
from schemas.topics import RESOLUTIONS, SOURCES, dead_letter_topic, named
from streams.kafka import producer_configuration, read_all, send_now
from streams.offsets import client_configuration
from streams.record import Record

_EVERY = Filter()


class DeadLetters:
    """The dead-letter topics of all stages."""

    def __init__(self, bootstrap_servers: str, *, generation: str = "") -> None:
        self._bootstrap_servers = bootstrap_servers
        self._generation = generation
        self._resolutions = named(RESOLUTIONS, generation)

    def find(self, which: Filter = _EVERY, *, limit: int | None = None) -> list[DeadLetter]:
        """Unresolved dead letters, oldest first."""
        letters = sorted((letter for letter, _ in self._matching(which)), key=lambda letter: letter.dead_lettered_at)
        return letters[:limit]

    def backlog(self) -> list[Backlog]:
        """How many unresolved dead letters each stage has, and since when."""
        came: dict[StageName, list[float]] = {stage: [] for stage in STAGES}
        for letter, _ in self._matching(_EVERY):
            came[letter.stage].append(letter.dead_lettered_at)
        return [Backlog(stage=stage, count=len(of), oldest=min(of, default=None)) for stage, of in came.items()]

    def show(self, letter_id: str) -> tuple[DeadLetter, Record] | None:
        """One dead letter with its record, byte for byte; None if there is none or it is resolved."""
        return next(self._matching(Filter(stages=[stage_of(letter_id)], ids=[letter_id])), None)

    def replay(self, which: Filter, *, rate: float | None = None, limit: int | None = None) -> Iterator[DeadLetter]:
        """Send matching dead letters back to their stage's source, at most ``rate`` a second; yields each when sent."""
        return self._resolve(which, "replayed", rate=rate, limit=limit)

    def drop(self, which: Filter, *, limit: int | None = None) -> Iterator[DeadLetter]:
        """Give matching dead letters up for good; yields each."""
        return self._resolve(which, "dropped", rate=None, limit=limit)

    def _resolve(
        self, which: Filter, action: Literal["replayed", "dropped"], *, rate: float | None, limit: int | None
    ) -> Iterator[DeadLetter]:
        producer = Producer(producer_configuration(self._bootstrap_servers))
        matching = sorted(self._matching(which), key=lambda pair: pair[0].dead_lettered_at)[:limit]
        for letter, record in matching:
            started = time.monotonic()
            if action == "replayed":
                headers = with_headers(original(record.headers), {names.STAGE: letter.stage})
                send_now(producer, named(SOURCES[letter.stage], self._generation), record.key, record.value, headers)
            send_now(producer, self._resolutions, letter.id.encode(), f'{{"action":"{action}"}}'.encode(), [])
            yield letter
            if rate:
                time.sleep(max(0.0, 1 / rate - (time.monotonic() - started)))
        if matching:
            self._cut({letter.stage for letter, _ in matching})

    def _matching(self, which: Filter) -> Iterator[tuple[DeadLetter, Record]]:
        resolved = self._resolved()
        stages = {self._topic(stage): stage for stage in which.stages}
        for record in read_all(self._bootstrap_servers, list(stages)):
            letter = _letter(stages[record.topic], record)
            if letter.id not in resolved and which.matches(letter):
                yield letter, record

    def _topic(self, stage: StageName) -> str:
        return named(dead_letter_topic(stage), self._generation)

    def _resolved(self) -> set[str]:
        last = {record.key: record.value for record in read_all(self._bootstrap_servers, [self._resolutions])}
        return {key.decode() for key, value in last.items() if key and value}

    def _cut(self, stages: set[StageName]) -> None:
        """Delete what lies before each partition's first unresolved dead letter, then forget those resolutions."""
        resolved = self._resolved()
        ends: dict[tuple[StageName, int], int] = {}
        blocked: set[tuple[StageName, int]] = set()
        for record in read_all(self._bootstrap_servers, [self._topic(stage) for stage in stages]):
            stage = next(stage for stage in stages if self._topic(stage) == record.topic)
            where = (stage, record.partition)
            if where not in blocked and f"{stage}/{record.partition}/{record.offset}" in resolved:
                ends[where] = record.offset + 1
            else:
                blocked.add(where)
        if not ends:
            return
        admin = AdminClient(client_configuration(self._bootstrap_servers))
        cuts = [TopicPartition(self._topic(stage), part, end) for (stage, part), end in ends.items()]
        for cut in admin.delete_records(cuts).values():
            cut.result(timeout=30)
        producer = Producer(producer_configuration(self._bootstrap_servers))
        for letter_id in resolved:
            where = (stage_of(letter_id), int(letter_id.split("/")[1]))
            if int(letter_id.split("/")[2]) < ends.get(where, 0):
                producer.produce(self._resolutions, key=letter_id.encode(), value=None)
        producer.flush(30)


def _letter(stage: StageName, record: Record) -> DeadLetter:
    def text(name: str) -> str:
        return header(record.headers, name) or ""

    return DeadLetter(
        id=f"{stage}/{record.partition}/{record.offset}",
        stage=stage,
        document_id=record.document_id,
        error_class=text(names.ERROR_CLASS),
        error=text(names.ERROR_MESSAGE),
        attempt=record.attempt,
        first_failed_at=int(text(names.FIRST_FAILED_AT) or 0) / 1000,
        dead_lettered_at=record.timestamp / 1000,
        source=f"{text(names.ERROR_TOPIC)}/{text(names.ERROR_PARTITION)}/{text(names.ERROR_OFFSET)}",
        correlation_id=record.correlation_id,
    )
