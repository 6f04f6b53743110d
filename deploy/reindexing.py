"""Another index from the same documents, made beside the one that answers until it can take its place.

The second index is a generation of its own: its stages read `aegis.documents.v1` from the start, under groups, topics
and stores that carry its name. What arrives meanwhile is read by both. Once the second holds what the first did, its
stores are offered to the node; this process goes on chunking, embedding and extracting for it until the workers do.
Ended halfway, it goes on where it was; docs/adr/0021 has the reasons.
"""

import asyncio
import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from pydantic import BaseModel

from deploy.catching_up import CatchingUp
from deploy.extraction_watch import ExtractionWatch
from deploy.generations import OFFERED, Generation, in_effect, number_of, offer, read, write_whole
from deploy.model_metrics import ModelMetrics
from deploy.running import find
from deploy.stores import drop_stores, open_graphs, open_vectors
from processors import build
from schemas.records import STAGES, StageName
from schemas.settings import Settings
from schemas.status import SETTLED
from schemas.topics import TARGETS
from streams.app import Resources, Worker, run_until_signalled
from streams.decisions import carry_decisions
from streams.lag import LagMeter
from streams.status import StatusView
from streams.topics import create_topics, drop_generation, generations

_MAKERS: Sequence[StageName] = tuple(TARGETS)
_KEEPERS: Sequence[StageName] = tuple(stage for stage in STAGES if stage not in TARGETS)
_LOOK_EVERY = 0.5
_CLOSE_BEHIND = 5.0  # seconds of lag with which the node takes over: under a steady stream it is never 0
_GIVE_UP = 15.0
_FOLLOW = 600.0
_TAKE_OVER = 120.0
_DRAFT = "reindexing.json"


class Plan(BaseModel):
    """What `aegis reindex` would make of what."""

    generation: str
    documents: int
    now: Generation
    then: Generation


class Report(BaseModel):
    """How a reindex went.

    ``failed`` documents are in the new index's dead letters. Seconds: from the start to everything being there, and
    from there to the node answering from it.
    """

    generation: str
    documents: int
    failed: int
    build_seconds: float
    switch_seconds: float


@dataclass(frozen=True)
class Shown:
    """What a person sees of it: a line to be said, or how many documents of how many are there."""

    say: Callable[[str], None]
    progress: Callable[[int, int], None]


class _Draft(BaseModel):
    """What is being made: the same again continues it, anything else starts the next generation."""

    generation: str
    fingerprint: str


def plan(live: Settings, wanted: Settings, bootstrap_servers: str) -> Plan:
    """What ``reindex`` would do; nothing is changed."""
    view = _view(live, bootstrap_servers)
    try:
        view.catch_up()
        documents = sum(view.counts().get(state, 0) for state in SETTLED)
    finally:
        view.stop()
    draft = _draft(live, wanted)
    now, then = Generation.of(live), Generation.of(wanted).model_copy(update={"name": draft.generation})
    return Plan(generation=draft.generation, documents=documents, now=now, then=then)


def reindex(live: Settings, wanted: Settings, bootstrap_servers: str, *, without_failed: bool, shown: Shown) -> Report:
    """Make an index with ``wanted`` settings and let it answer in place of ``live``'s.

    Raises:
        RuntimeError: It was interrupted, cannot hold what the live one holds, or the node has not followed in time.
            The live index answers on.
        NotRunningError: The system has been stopped meanwhile.
    """
    if in_effect(live).generation != live.generation:
        raise RuntimeError("another generation has just begun to answer; run the command again")
    draft = _draft(live, wanted)
    write_whole(live.data_dir / _DRAFT, draft.model_dump_json())
    kafka = wanted.kafka.model_copy(update={"instance": ""})  # the worker's, if it has one
    target = wanted.model_copy(update={"generation": draft.generation, "kafka": kafka})
    _drop_abandoned(live, target, bootstrap_servers, shown)
    create_topics(bootstrap_servers, target.kafka, target.generation)
    shown.say(f"Generation {target.generation}: every document again, with {target.embedding.model}")
    making = _Making(live, target, bootstrap_servers, without_failed=without_failed, shown=shown)
    try:
        run_until_signalled(making.run)
    finally:
        making.close()
    return making.report()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One reindex at a time on a data folder, and none while the node takes over from one.

    Raises:
        RuntimeError: There is another.
    """
    with (folder / "reindex.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f"another `aegis reindex` works on {folder.resolve()}") from error
        if offered := read(folder, OFFERED):
            raise RuntimeError(f"the node is about to answer from generation {offered.name}; wait until it does")
        yield


def _draft(live: Settings, wanted: Settings) -> _Draft:
    """The one that was begun, or another; a deleted topic's name is not used again."""
    file, fingerprint, last = live.data_dir / _DRAFT, build.fingerprint(wanted), number_of(live.generation)
    if file.exists():
        draft = _Draft.model_validate_json(file.read_text())
        if draft.fingerprint == fingerprint and number_of(draft.generation) > last:
            return draft
        last = max(last, number_of(draft.generation))
    return _Draft(generation=f"g{last + 1}", fingerprint=fingerprint)


def _drop_abandoned(live: Settings, target: Settings, bootstrap_servers: str, shown: Shown) -> None:
    """Delete what was begun with other settings and never finished; what was before the live one is the node's."""

    def is_abandoned(generation: str) -> bool:
        return generation != target.generation and number_of(generation) > number_of(live.generation)

    for generation in sorted(filter(is_abandoned, generations(bootstrap_servers))):
        shown.say(f"Deleting what was begun as generation {generation}")
        drop_generation(bootstrap_servers, generation)
    drop_stores(live.data_dir, is_abandoned)


def _view(settings: Settings, bootstrap_servers: str) -> StatusView:
    view = StatusView(bootstrap_servers, max_documents=settings.status.max_documents, generation=settings.generation)
    view.start()
    return view


class _Making:
    """The next generation's stages in this process, and how far they are."""

    def __init__(
        self, live: Settings, target: Settings, bootstrap_servers: str, *, without_failed: bool, shown: Shown
    ) -> None:
        self._live, self._target, self._bootstrap_servers = live, target, bootstrap_servers
        self._shown = shown
        self._without_failed = without_failed
        self._old, self._new = _view(live, bootstrap_servers), _view(target, bootstrap_servers)
        self._meter = LagMeter(bootstrap_servers, generation=target.generation)
        self._graphs = open_graphs(target)
        resources = Resources(
            target,
            bootstrap_servers,
            lambda: self._new,
            vectors=lambda: open_vectors(target).store,
            graph=lambda: self._graphs.store,
            observe=ModelMetrics(target.embedding.model),
            observe_extraction=ExtractionWatch(),
        )
        self._makers, self._keepers = Worker(resources, _MAKERS), Worker(resources, _KEEPERS)
        self._times = [time.monotonic()]
        self._since = self._times[0]
        self._documents = self._failed = 0

    def close(self) -> None:
        """Stop following."""
        self._old.stop()
        self._new.stop()

    def report(self) -> Report:
        """How it went.

        Raises:
            RuntimeError: It was told to stop.
        """
        if len(self._times) < 3:
            raise RuntimeError("stopped before the new index answers; the same command goes on from here")
        begun, built, followed = self._times
        return Report(
            generation=self._target.generation,
            documents=self._documents,
            failed=self._failed,
            build_seconds=round(built - begun, 3),
            switch_seconds=round(followed - built, 3),
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Make the index, hand its stores over, and go on making until the workers do.

        Raises:
            RuntimeError: As ``reindex``.
        """
        kept, made = asyncio.Event(), asyncio.Event()
        keeping = asyncio.create_task(self._keepers.run(kept))
        making = asyncio.create_task(self._makers.run(made))
        try:
            for _ in range(2):  # what was there at first, then what has come since
                await asyncio.to_thread(self._compare)
                if not await self._until(self._is_complete, stopping, [keeping, making]):
                    return
            kept.set()
            await keeping
            await asyncio.to_thread(self._hand_over)
            if await self._until(self._is_followed, stopping, [making]):
                self._times.append(time.monotonic())
                await self._until(self._is_taken_over, stopping, [making])
        finally:
            kept.set()
            made.set()
            await asyncio.gather(keeping, making)

    async def _until(
        self, holds: Callable[[], bool], stopping: asyncio.Event, working: Sequence["asyncio.Task[None]"]
    ) -> bool:
        """Whether it came to hold before everything was told to stop."""
        self._since = time.monotonic()
        while not stopping.is_set():
            for ended in (task for task in working if task.done()):
                await ended  # raises why
            find(self._live)  # raises where the system has been stopped
            self._check_breakers()
            with suppress(KafkaException, LookupError, TimeoutError):  # a topic made a moment ago, a broker back again
                if await asyncio.to_thread(holds):
                    return True
            await asyncio.sleep(_LOOK_EVERY)
        return False

    def _check_breakers(self) -> None:
        for stage, health in (self._makers.healths | self._keepers.healths).items():
            if health.tripped:
                raise RuntimeError(
                    f"{stage} has stopped ({health.tripped}); mend the cause, then run the same command again"
                )

    def _compare(self) -> None:
        self._old.catch_up()
        if self._old.is_full:
            raise RuntimeError("there are more documents than are compared; set AEGIS_STATUS__MAX_DOCUMENTS above them")
        self._catching_up = CatchingUp(self._old, self._new, without_failed=self._without_failed)

    def _is_complete(self) -> bool:
        """Whether the new index holds what the old one held when they were compared, and is close behind."""
        catching_up, before = self._catching_up, self._catching_up.done
        complete = catching_up.is_done()
        self._shown.progress(catching_up.done, catching_up.total)
        if catching_up.done != before:
            self._since = time.monotonic()
        if complete:
            return all((group.seconds or 0.0) <= _CLOSE_BEHIND for group in self._meter.measure())
        if time.monotonic() - self._since > _GIVE_UP:
            self._check_work_is_left()
        return False

    def _check_work_is_left(self) -> None:
        if any(group.records for group in self._meter.measure(STAGES, retries=True)):
            return
        first = sorted(self._catching_up.left)[0]
        status = self._new.get(first)
        why = status.error or status.state if status else "it is not in aegis.documents.v1 any more"
        raise RuntimeError(
            f"{len(self._catching_up.left)} documents of the live index cannot be made for the new one; the first is "
            f"{first!r}: {why}. The live index answers on. Publish or delete them and run the same command again, or "
            "add --without-failed, which leaves to the new index's dead letters those that are there"
        )

    def _hand_over(self) -> None:
        """Release the stores and let the node know of them."""
        self._graphs.close()
        carry_decisions(self._bootstrap_servers, source=self._live.generation, target=self._target.generation)
        self._documents, self._failed = self._catching_up.total, self._new.counts().get("dead-lettered", 0)
        self._times.append(time.monotonic())
        offer(self._live.data_dir, Generation.of(self._target))

    def _is_followed(self) -> bool:
        if read(self._live.data_dir, OFFERED) is None:
            generation = read(self._live.data_dir)
            if generation is None or generation.name != self._target.generation:
                raise RuntimeError("the node could not open the new index and answers from the old; see logs/node.log")
            (self._live.data_dir / _DRAFT).unlink(missing_ok=True)
            return True
        if time.monotonic() - self._since > _FOLLOW:
            raise RuntimeError(f"the node has not switched in {_FOLLOW:g} s, but will try; see logs/node.log")
        return False

    def _is_taken_over(self) -> bool:
        """Whether the workers' own stages are there; without them the documents wait a little, and that is all."""
        return (
            all(group.members > 1 for group in self._meter.measure(_MAKERS))
            or time.monotonic() - self._since > _TAKE_OVER
        )
