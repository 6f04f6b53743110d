"""The comparison of both stores: every damage is named on every store, and what is in flight is no difference."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.consistency import Difference, Summary
from schemas.records import STAGES, EmbeddedChunk, State, StatusRecord
from streams.consistency import Consistency
from streams.sinks import graph_audit
from streams.sinks.index import index
from streams.status import StatusView
from tests.damage import DAMAGES, STRANGER, Stores, add_ghosts, audit_of
from tests.graph_stores import NAMES, STORES, V1, extraction
from tests.neo4j_server import TIMEOUT
from tests.vector_stores import embedded, opened, vector_of

pytestmark = pytest.mark.timeout(TIMEOUT)

INDEXED: dict[str, State] = {"chunk": "chunked", "index-vectors": "indexed", "index-graph": "indexed"}


@pytest.fixture(params=[("edge", "ladybug"), ("memory", "neo4j")], ids="-".join)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    vectors, graph = request.param
    with ExitStack() as stack:
        sides = stack.enter_context(opened(vectors, tmp_path / "vectors"))
        yield Stores(sides.sink, stack.enter_context(STORES[graph](tmp_path / "graph")))


@pytest.fixture
def view() -> StatusView:
    return StatusView("nowhere:1", max_documents=1000)  # never started: it knows what it is told


def put(stores: Stores, view: StatusView, *document_ids: str) -> None:
    """Documents of three chunks, as the stages write them."""
    found = [extraction(id_, NAMES[:3], index=number, count=3) for id_ in document_ids for number in range(3)]
    chunks = [one.chunk.model_copy(update={"content_hash": "h"}) for one in found]
    index(
        stores.vectors,
        "index-vectors",
        [EmbeddedChunk.of(chunk, vector_of(chunk.text), stores.model) for chunk in chunks],
    )
    index(
        stores.graph,
        "index-graph",
        [one.model_copy(update={"chunk": chunk}) for one, chunk in zip(found, chunks, strict=True)],
    )
    for document_id in document_ids:
        tell(view, document_id, INDEXED)


def tell(view: StatusView, document_id: str, states: dict[str, State]) -> None:
    for stage in (stage for stage in STAGES if stage in states):
        view.apply(
            StatusRecord(
                document_id=document_id,
                version=V1.version,
                sequence=V1.sequence,
                stage=stage,
                state=states[stage],
                at=time.time(),
            )
        )


def compared(
    stores: Stores, view: StatusView | None, *, unread: int = 0, limit: int = 1000
) -> tuple[list[Difference], Summary]:
    lines = list(Consistency(stores.vectors, audit_of(stores), view, lambda: unread).check(limit=limit))
    last = lines[-1]
    assert isinstance(last, Summary)
    assert last.done
    return [line for line in lines if isinstance(line, Difference)], last


def test_every_damage_is_named_and_nothing_else(stores: Stores, view: StatusView) -> None:
    put(stores, view, *(DAMAGES.keys() - {STRANGER}), "sound")
    assert compared(stores, view)[0] == []
    for document_id, damage in DAMAGES.items():
        damage.harm(stores, document_id)
    add_ghosts(stores)
    differences, summary = compared(stores, view)
    named = defaultdict(set)
    for one in differences:
        named[one.document_id].add(one.kind)
        assert one.vectors or one.graph
    assert named.pop(None) == {"entity-unmentioned", "relation-without-chunk"}
    assert named == {document_id: damage.kinds for document_id, damage in DAMAGES.items()}
    assert summary.differences == len(differences)
    assert summary.documents == len(DAMAGES) + 1


def test_a_sweep_removes_what_no_document_leads_to_and_nothing_else(stores: Stores, view: StatusView) -> None:
    put(stores, view, "sound", "lose-a-document-node")
    before = list(stores.graph.dump())
    add_ghosts(stores)
    DAMAGES["lose-a-document-node"].harm(stores, "lose-a-document-node")
    assert audit_of(stores).sweep() == 3 + 2  # chunks; the entity and its relation
    assert audit_of(stores).sweep() == 0
    assert stores.graph.orphans() == 0
    assert [row for row in before if "lose-a-document-node" not in row] == list(stores.graph.dump())


def test_pages_meet_every_document_and_chunk_once(
    stores: Stores, view: StatusView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_audit, "_CHUNKS_PER_PAGE", 7)
    monkeypatch.setattr(graph_audit, "PAGE", 5)
    put(stores, view, *(f"doc-{number}" for number in range(12)))
    DAMAGES["lose-the-relations-of-a-chunk"].harm(stores, "doc-7")
    differences, summary = compared(stores, view)
    assert [(one.document_id, one.kind) for one in differences] == [("doc-7", "edges-differ")]
    assert (summary.documents, summary.points, summary.chunks, summary.entities) == (12, 36, 36, 3)
    assert (summary.mentions, summary.relations) == (108, 70)


def test_what_is_in_flight_is_no_difference(stores: Stores, view: StatusView) -> None:
    put(stores, view, "sound", "damaged")
    items = [extraction("arriving", index=number, count=3) for number in range(2)]
    index(stores.graph, "index-graph", items)
    tell(view, "arriving", {"chunk": "chunked"})
    DAMAGES["lose-a-point"].harm(stores, "damaged")
    differences, summary = compared(stores, view, unread=1)
    assert {one.document_id: one.remedy for one in differences} == {"arriving": "wait", "damaged": "republish"}
    assert (summary.differences, summary.in_flight) == (1, 1)
    stuck, summary = compared(stores, view, unread=0)
    assert {one.document_id: one.remedy for one in stuck} == {"arriving": "republish", "damaged": "republish"}
    unknown, _ = compared(stores, None, unread=1)
    assert {one.document_id: one.remedy for one in unknown} == {"arriving": "wait", "damaged": "republish"}


def test_a_dead_letter_is_no_difference_while_the_stores_agree(stores: Stores, view: StatusView) -> None:
    put(stores, view, "sound")
    tell(view, "sound", {"chunk": "dead-lettered"})
    tell(view, "never-in", {"chunk": "dead-lettered"})
    assert compared(stores, view)[0] == []
    index(stores.graph, "index-graph", [extraction("half-in")])
    tell(view, "half-in", {"chunk": "chunked", "embed": "dead-lettered", "index-graph": "indexed"})
    differences, _ = compared(stores, view)
    assert [(one.document_id, one.kind, one.remedy) for one in differences] == [("half-in", "head-missing", "replay")]


def test_a_document_that_both_stores_have_not_finished_is_incomplete(stores: Stores, view: StatusView) -> None:
    half = extraction("half", count=2)
    half = half.model_copy(update={"chunk": half.chunk.model_copy(update={"content_hash": "h"})})
    index(stores.graph, "index-graph", [half])
    index(stores.vectors, "index-vectors", embedded("half", [half.chunk.text, "more"], V1, content_hash="h")[:1])
    tell(view, "half", {"chunk": "chunked"})
    differences, _ = compared(stores, view)
    assert [(one.document_id, one.kind) for one in differences] == [("half", "incomplete")]


def test_the_comparison_stops_at_the_limit_and_says_so(stores: Stores, view: StatusView) -> None:
    put(stores, view, *(f"doc-{number}" for number in range(4)))
    for number in range(4):
        DAMAGES["lose-a-point"].harm(stores, f"doc-{number}")
    differences, summary = compared(stores, view, limit=2)
    assert len(differences) == 2
    assert summary.is_cut
