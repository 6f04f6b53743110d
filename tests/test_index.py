"""The indexing algorithm under histories, late records, duplicates, batch splits and crashes drawn by hypothesis."""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.errors import TransientError
from schemas.records import EmbeddedChunk, Mark, Revision, StageName, StatusRecord
from streams.sinks.index import Head, Store, index
from tests.memory_store import BrittleStore, Crash, MemoryStore
from tests.vector_stores import KINDS, Sides, embedded, opened

Record = EmbeddedChunk | Mark
STAGE: StageName = "index-vectors"

_change = st.tuples(
    st.sampled_from("abc"),
    st.integers(0, 3),
    st.sampled_from(["upsert", "upsert", "delete", "touch"]),
    st.integers(1, 5),
)
_moves = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25)), max_size=6)


@dataclass
class Scenario:
    """A topic's records in the order they arrive, and what the store must hold in the end."""

    records: list[Record] = field(default_factory=list)
    newest: dict[str, Revision] = field(default_factory=dict)
    content: dict[str, list[str]] = field(default_factory=dict)
    disordered: set[str] = field(default_factory=set)

    def publish(self, document_id: str, version: int, operation: str, chunk_count: int) -> None:
        revision = Revision(version, len(self.records))
        is_newest = revision > self.newest.get(document_id, Revision(-1, 0))
        known = self.content.get(document_id)
        if operation == "touch" and is_newest and known:
            self.records.append(_mark(document_id, revision, "touch", known))
        elif operation == "delete":
            self.records.append(_mark(document_id, revision, "delete", []))
            known = []
        else:
            known = [f"{document_id}{revision} {position}" for position in range(chunk_count)]
            self.records += embedded(document_id, known, revision)
        if is_newest:
            self.newest[document_id] = revision
            self.content[document_id] = known or []
        else:
            self.disordered.add(document_id)

    def live(self) -> dict[tuple[str, int], str]:
        return {
            (document_id, position): text
            for document_id, texts in self.content.items()
            for position, text in enumerate(texts)
        }


@dataclass
class Outcome:
    """What a delivery left behind besides the store: statuses, and documents with a dead-lettered touch."""

    statuses: list[StatusRecord] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)


def _mark(document_id: str, revision: Revision, operation: str, texts: list[str]) -> Mark:
    return Mark.model_validate(
        {
            "document_id": document_id,
            "version": revision.version,
            "sequence": revision.sequence,
            "operation": operation,
            "content_hash": "|".join(texts) or None,
            "chunk_count": len(texts),
        }
    )


@st.composite
def scenarios(draw: st.DrawFn, prefix: str = "") -> Scenario:
    scenario = Scenario()
    for document_id, version, operation, chunk_count in draw(st.lists(_change, min_size=1, max_size=8)):
        scenario.publish(prefix + document_id, version, operation, chunk_count)
    records = scenario.records
    for origin, distance in draw(_moves):  # late: a record that went through a retry topic
        if origin < len(records):
            records.insert(origin + distance, records.pop(origin))
    for origin, distance in draw(_moves):  # twice: a producer or a worker that died before it could commit
        if origin < len(records):
            records.insert(origin + distance, records[origin])
    return scenario


def deliver(store: Store[EmbeddedChunk], records: Sequence[Record], sizes: Sequence[int]) -> Outcome:
    """Hand records over as the agent does: batch by batch, once more after a crash, a few times when they fail."""
    outcome = Outcome()
    queue, size = deque(records), itertools.cycle(sizes)
    attempts: Counter[int] = Counter()
    while queue:
        batch = list(itertools.islice(queue, next(size)))
        try:
            failed = _process(store, batch, outcome)
        except Crash:
            continue
        for _ in batch:
            queue.popleft()
        attempts.update(map(id, failed))
        queue.extend(record for record in failed if attempts[id(record)] < 4)
        outcome.dead |= {document_of(record) for record in failed if attempts[id(record)] >= 4}
    return outcome


def _process(store: Store[EmbeddedChunk], batch: Sequence[Record], outcome: Outcome) -> list[Record]:
    """Index a batch, halved until what fails stands alone; the records that failed."""
    try:
        per_record = index(store, STAGE, batch)
    except TransientError:
        if len(batch) == 1:
            return list(batch)
        middle = len(batch) // 2
        return _process(store, batch[:middle], outcome) + _process(store, batch[middle:], outcome)
    assert len(per_record) == len(batch)
    outcome.statuses += itertools.chain.from_iterable(per_record)
    return []


def crashing_at(steps: set[int]) -> Callable[[], None]:
    counter = itertools.count()

    def step() -> None:
        if next(counter) in steps:
            raise Crash

    return step


def check(scenario: Scenario, store: Store[EmbeddedChunk], outcome: Outcome) -> None:
    """Every document is at its newest revision, nothing else is left, and the status topic says so."""
    heads = store.heads(scenario.newest)
    last = {status.document_id: status for status in sorted(outcome.statuses, key=lambda status: status.revision)}
    for document_id, revision in scenario.newest.items():
        texts, head = scenario.content[document_id], heads[document_id]
        assert (head.latest, head.complete, head.deleted) == (revision, bool(texts), not texts)
        assert head.chunk_count == len(texts)
        assert (last[document_id].revision, last[document_id].state) == (revision, "indexed" if texts else "deleted")
        for seen in {record_revision(record) for record in scenario.records if document_of(record) == document_id}:
            assert store.held(document_id, seen) == (len(texts) if seen == head.live else 0)


def settle(scenario: Scenario, outcome: Outcome) -> None:
    """Leave out the documents whose touch was overtaken, while its content was late, by an older version."""
    assert outcome.dead <= scenario.disordered
    for document_id in outcome.dead:
        del scenario.newest[document_id], scenario.content[document_id]


def record_revision(record: Record) -> Revision:
    return record.revision if isinstance(record, Mark) else record.chunk.revision


def document_of(record: Record) -> str:
    return record.document_id if isinstance(record, Mark) else record.chunk.document_id


_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=5)
_crashes = st.sets(st.integers(0, 80), max_size=6)


@settings(max_examples=400, deadline=None)
@given(scenarios(), _sizes, _crashes)
def test_any_history_ends_at_the_newest_revisions(scenario: Scenario, sizes: list[int], crashes: set[int]) -> None:
    store = MemoryStore[EmbeddedChunk](crashing_at(crashes))
    outcome = deliver(store, scenario.records, sizes)
    settle(scenario, outcome)
    check(scenario, store, outcome)
    left = {place: text for place, text in store.live().items() if place[0] not in outcome.dead}
    assert left == scenario.live()
    assert len(store.chunks) == len(store.live())


@settings(max_examples=200, deadline=None)
@given(scenarios(), _sizes)
def test_a_document_answers_at_every_moment_of_its_updates(scenario: Scenario, sizes: list[int]) -> None:
    deleted = {
        document_of(record) for record in scenario.records if isinstance(record, Mark) and record.operation == "delete"
    }
    answering: set[str] = set()

    def step() -> None:
        now = {document_id for (document_id, _, _), (_, live) in store.chunks.items() if live}
        assert answering - deleted <= now
        answering.update(now)

    store = MemoryStore[EmbeddedChunk](step)
    deliver(store, scenario.records, sizes)


_examples = itertools.count()


@pytest.fixture(scope="module", params=KINDS)
def sides(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    with opened(request.param, tmp_path_factory.mktemp("vectors")) as sides:
        yield sides


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), _sizes, st.sets(st.integers(0, 80), max_size=4))
def test_the_real_stores_end_there_too(sides: Sides, data: st.DataObject, sizes: list[int], crashes: set[int]) -> None:
    prefix = f"{next(_examples)}-"
    scenario = data.draw(scenarios(prefix))
    outcome = deliver(BrittleStore(sides.sink, crashing_at(crashes)), scenario.records, sizes)
    everything = [*scenario.newest]
    settle(scenario, outcome)
    check(scenario, sides.sink, outcome)
    found = [chunk for chunk in sides.sink.dump() if chunk.document_id in scenario.newest]
    assert {(chunk.document_id, chunk.chunk_index): chunk.text for chunk in found} == scenario.live()
    assert len(found) == len(scenario.live())
    for document_id in everything:
        sides.sink.erase(document_id)


def test_a_status_goes_with_the_last_record_of_its_document() -> None:
    first, second = embedded("a", ["x", "y"], Revision(1, 0))
    (other,) = embedded("b", ["z"], Revision(1, 2))
    statuses = index(MemoryStore[EmbeddedChunk](), STAGE, [first, other, second])
    assert [[status.document_id for status in of_record] for of_record in statuses] == [[], ["b"], ["a"]]


def test_an_incomplete_document_has_no_status_and_does_not_answer() -> None:
    store = MemoryStore[EmbeddedChunk]()
    first, second = embedded("a", ["x", "y"], Revision(1, 0))
    assert index(store, STAGE, [first]) == [[]]
    assert store.live() == {}
    assert index(store, STAGE, [second])[0][0].state == "indexed"
    assert store.live() == {("a", 0): "x", ("a", 1): "y"}


def test_touching_what_the_store_does_not_hold_is_transient() -> None:
    with pytest.raises(TransientError, match="published unchanged"):
        index(MemoryStore[EmbeddedChunk](), STAGE, [_mark("a", Revision(2, 1), "touch", ["x"])])


def test_a_deleted_document_stays_deleted() -> None:
    store = MemoryStore[EmbeddedChunk]()
    chunks = embedded("a", ["x", "y"], Revision(1, 0))
    index(store, STAGE, chunks)
    index(store, STAGE, [_mark("a", Revision(2, 1), "delete", [])])
    index(store, STAGE, chunks)
    assert store.chunks == {}
    assert store.known == {"a": Head(latest=Revision(2, 1), deleted=True)}
