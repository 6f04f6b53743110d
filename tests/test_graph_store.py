"""What a graph store promises, whichever store it is."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.errors import PermanentError, TransientError
from schemas.records import Extraction, Mark, Revision
from streams.sinks.index import Head, index
from tests.graph_stores import NAMES, STORES, V1, V2, GraphStore, Opened, extraction, kinds, ladybug_store, whole
from tests.neo4j_server import TIMEOUT

pytestmark = pytest.mark.timeout(TIMEOUT)


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest) -> Opened:
    return STORES[request.param]


@pytest.fixture
def store(opened: Opened, tmp_path: Path) -> Iterator[GraphStore]:
    with opened(tmp_path) as store:
        yield store


def test_heads_come_back_as_written(store: GraphStore) -> None:
    heads = {
        "staged": Head(latest=Revision(2**63 - 1, 2**62), chunk_count=3, content_hash="h"),
        "live": Head(latest=V2, live=V1, complete=True, chunk_count=1),
        "deleted": Head(latest=V1, deleted=True),
    }
    store.write(heads, [], live=False)
    assert store.heads([*heads, "unknown"]) == heads
    store.write({"live": heads["deleted"]}, [], live=False)
    assert store.heads(["live"]) == {"live": heads["deleted"]}
    assert store.heads([]) == {}


def test_heads_that_all_have_no_live_revision_can_be_written(store: GraphStore) -> None:
    heads = {name: Head(latest=V1) for name in ("a", "b")}
    store.write(heads, [], live=False)
    assert store.heads(heads) == heads


def test_writing_again_changes_nothing(store: GraphStore) -> None:
    items = [extraction("a", index=position, count=2) for position in range(2)]
    store.write(whole(*items), items, live=True)
    once = list(store.dump())
    store.write(whole(*items), items, live=True)
    store.write({}, [*items, items[0]], live=True)
    assert list(store.dump()) == once
    assert kinds(store) == {"document": 1, "chunk": 2, "entity": 2, "mention": 4, "relation": 2}


def test_a_revision_is_unseen_until_it_is_made_live_and_then_alone(store: GraphStore) -> None:
    old, new = extraction("a", NAMES[:3]), extraction("a", NAMES[2:], revision=V2)
    store.write(whole(old), [old], live=True)
    before = list(store.dump())
    store.write({"a": Head(latest=V2, live=V1, chunk_count=1)}, [new], live=False)
    assert list(store.dump()) == before
    assert (store.held("a", V1), store.held("a", V2)) == (1, 1)
    for _ in range(2):
        store.make_live("a", V2)
        assert [row for row in store.dump() if row[0] in {"chunk", "entity"}] == [
            ("chunk", "a", 0, new.chunk.text),
            ("entity", "Thing", "confluent"),
            ("entity", "Thing", "linkedin"),
        ]
        assert (store.held("a", V1), store.held("a", V2)) == (0, 1)
        assert store.orphans() == 0


def test_a_live_chunk_that_is_delivered_again_keeps_answering(store: GraphStore) -> None:
    item = extraction("a")
    store.write(whole(item), [item], live=True)
    live = list(store.dump())
    store.write({}, [item], live=False)
    assert list(store.dump()) == live


def test_a_staged_chunk_that_is_written_live_answers(store: GraphStore) -> None:
    item = extraction("a")
    store.write(whole(item), [item], live=False)
    assert kinds(store) == {}
    store.write({}, [item], live=True)
    assert kinds(store)["chunk"] == 1


def test_erase_takes_what_only_this_document_supported(store: GraphStore) -> None:
    shared, own = extraction("a", NAMES[:2]), extraction("b", NAMES[:3])
    store.write(whole(shared), [shared], live=True)
    alone = list(store.dump())
    store.write(whole(own), [own], live=True)
    for _ in range(2):
        store.erase("b")
        assert list(store.dump()) == alone
        assert store.orphans() == 0
    assert store.heads(["b"]) == whole(own)
    store.erase("unknown")


def test_a_relation_of_an_entity_with_itself_is_removed_with_its_chunk(store: GraphStore) -> None:
    item = extraction("a", ("kafka", "kafka"))
    assert item.relations[0].source == item.relations[0].target
    store.write(whole(item), [item], live=True)
    assert kinds(store)["relation"] == 1
    store.erase("a")
    assert kinds(store) == {}
    assert store.orphans() == 0


def test_mentions_and_relations_of_a_chunk_are_counted_once_per_key(store: GraphStore) -> None:
    item = extraction("a", ("kafka", "linkedin", "kafka", "linkedin"))
    store.write(whole(item), [item], live=True)
    assert [row for row in store.dump() if row[0] in {"mention", "relation"}] == [
        ("mention", "Thing", "kafka", "a", 0, 2),
        ("mention", "Thing", "linkedin", "a", 0, 2),
        ("relation", "Thing", "kafka", "Thing", "linkedin", "knows", "a", 0),
        ("relation", "Thing", "linkedin", "Thing", "kafka", "knows", "a", 0),
    ]


@pytest.mark.parametrize(
    "name", ["a\x00b", "emoji 🦜", 'it\'s "quoted" \\ {a: $b}', "[1, 2]", '{"a": 1}', "ß" * 300_000]
)
def test_text_comes_back_as_written(store: GraphStore, name: str) -> None:
    item = extraction("a", (name, "kafka"))
    store.write(whole(item), [item], live=True)
    rows = list(store.dump())
    assert ("chunk", "a", 0, item.chunk.text) in rows
    assert ("entity", "Thing", name) in rows


def test_a_chunk_without_mentions_is_held(store: GraphStore) -> None:
    item = extraction("a", ())
    store.write(whole(item), [item], live=True)
    assert kinds(store) == {"document": 1, "chunk": 1}
    assert store.orphans() == 0


def test_a_relation_to_an_entity_that_is_not_mentioned_never_passes(store: GraphStore) -> None:
    good, broken = extraction("a"), extraction("b").model_copy(update={"mentions": ()})
    with pytest.raises(PermanentError, match="'b' relates"):
        store.write(whole(good, broken), [good, broken], live=True)
    assert store.heads(["a", "b"]) == {}
    store.write(whole(good), [good], live=True)
    assert kinds(store)["document"] == 1


def test_a_chunk_before_its_head_is_refused_whole(store: GraphStore) -> None:
    with pytest.raises(TransientError, match="1 chunks came before the head"):
        store.write(whole(extraction("a")), [extraction("a"), extraction("b")], live=True)
    assert (store.heads(["a", "b"]), kinds(store), store.orphans()) == ({}, {}, 0)


Record = Extraction | Mark
_chunks = st.lists(st.lists(st.sampled_from(NAMES), max_size=4), min_size=1, max_size=3)
_changes = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.none() | _chunks), min_size=1, max_size=8)
_moves = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)
_examples = itertools.count()


@dataclass
class History:
    """Records in the order they arrive, the revisions they are of, and what must be left in the end."""

    records: list[Record] = field(default_factory=list)
    revisions: list[tuple[str, Revision]] = field(default_factory=list)
    newest: dict[str, tuple[Revision, list[Extraction]]] = field(default_factory=dict)

    def add(self, document_id: str, version: int, chunks: list[list[str]] | None) -> None:
        revision = Revision(version, len(self.revisions))
        self.revisions.append((document_id, revision))
        items = [
            extraction(document_id, names, revision=revision, index=position, count=len(chunks or ()))
            for position, names in enumerate(chunks or ())
        ]
        delete = Mark(document_id=document_id, version=version, sequence=revision.sequence, operation="delete")
        self.records += items or [delete]
        if document_id not in self.newest or self.newest[document_id][0] < revision:
            self.newest[document_id] = (revision, items)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Upserts, updates and deletes; some records arrive late or twice."""
    history, example = History(), next(_examples)
    for document_id, version, chunks in draw(_changes):
        history.add(f"{document_id}{example}", version, chunks)
    records = history.records
    for origin, target in draw(_moves):
        records.insert(target % len(records), records[origin % len(records)])  # twice, and maybe late
    for origin, target in draw(_moves):
        records.insert(target % len(records), records.pop(origin % len(records)))
    return history


def test_any_history_ends_like_its_final_state(opened: Opened, tmp_path: Path) -> None:
    with opened(tmp_path / "lived") as lived, ladybug_store(tmp_path / "fresh") as fresh:

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(history=histories(), batch_size=st.integers(1, 9))
        def ends_alike(history: History, batch_size: int) -> None:
            for start in range(0, len(history.records), batch_size):
                index(lived, "index-graph", history.records[start : start + batch_size])
            for _, items in history.newest.values():
                index(fresh, "index-graph", items)
            try:
                assert sorted(lived.dump()) == sorted(fresh.dump())
                assert (lived.orphans(), fresh.orphans()) == (0, 0)
                newest = {document_id: revision for document_id, (revision, _) in history.newest.items()}
                for document_id, revision in history.revisions:
                    assert revision == newest[document_id] or lived.held(document_id, revision) == 0
            finally:
                for document_id in history.newest:
                    lived.erase(document_id)
                    fresh.erase(document_id)
            assert (kinds(lived), lived.orphans()) == ({}, 0)

        ends_alike()
