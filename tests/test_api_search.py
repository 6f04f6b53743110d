"""Search over a real store: filters, pages, diversity, groups, and why a document is not there."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from api.access.principals import ANONYMOUS
from api.ports import Ports
from api.search import Search, SearchRequest, SearchResponse
from schemas.records import Revision
from schemas.storage import DENSE, SPARSE
from streams.sinks.index import Head
from tests.api_server import MemoryReranker, Stack, serving
from tests.vector_stores import bm25, embedded, opened, vector_of

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

FIRST = Revision(1, 0)


@dataclass
class Library:
    """A store with thirty documents of two chunks each, and what searches it."""

    ports: Ports
    stack: Stack = field(default_factory=Stack)

    def search(self, query: str = "leave 3", **options: Any) -> SearchResponse:
        search = Search(self.ports, rerank_candidates=20, graph_timeout=10.0)
        return asyncio.run(search.search(SearchRequest(query=query, **options), ANONYMOUS))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with opened("memory", tmp_path) as sides:
        items = [
            item
            for number in range(30)
            for item in embedded(
                f"d{number}",
                [f"leave {number}", f"travel {number}"],
                FIRST,
                metadata={"year": 2000 + number, "even": number % 2 == 0},
            )
        ]
        head = Head(latest=FIRST, live=FIRST, complete=True, chunk_count=2)
        sides.sink.write({f"d{number}": head for number in range(30)}, items, live=True)
        sides.sink.write({"gone": Head(latest=FIRST, deleted=True)}, [], live=True)
        stack = Stack()
        stack.status.report("slow", 4, chunk="chunked", embed="embedded")
        stack.status.report("gone", 1, index_vectors="deleted", index_graph="deleted")
        ports = replace(stack.ports(), retriever=sides.retriever, embed_query=vector_of, encode_query=bm25.query)
        yield Library(ports, stack)


def ids(response: SearchResponse) -> list[str]:
    return [hit.chunk_id for hit in response.hits]


def test_a_filter_keeps_the_order_of_what_passes(library: Library) -> None:
    everything = library.search(limit=60).hits
    found = library.search(limit=100, filter={"metadata.year": {"$gte": 2010}, "metadata.even": True}).hits
    assert {hit.document_id for hit in found} == {f"d{number}" for number in range(10, 30, 2)}
    dense = [hit.chunk_id for hit in sorted(everything, key=lambda hit: -hit.scores[DENSE]) if hit in found]
    assert dense == [hit.chunk_id for hit in sorted(found, key=lambda hit: -hit.scores[DENSE]) if hit in everything]


@pytest.mark.parametrize("options", [{}, {"mmr": 0.5}, {"group_by": "document"}, {"mode": "keyword"}])
def test_pages_are_cut_from_one_ranking(library: Library, options: Mapping[str, Any]) -> None:
    whole = library.search(limit=50, **options)
    paged, offset, places = [], 0, []
    while offset is not None:
        page = library.search(limit=7, offset=offset, **options)
        paged += ids(page)
        places += [hit.rank for hit in page.hits]
        offset = page.next_offset  # type: ignore[assignment]
    assert paged == ids(whole)
    assert places == list(range(1, len(paged) + 1))


def test_a_window_is_as_deep_as_it_says(library: Library) -> None:
    assert [len(library.search(limit=100, window=window).hits) for window in (5, 60)] == [5, 60]
    with pytest.raises(ValueError, match="offset 50 lies beyond the ranking of 50; set window"):
        library.search(offset=50)
    assert library.search(offset=55, window=56, limit=3).next_offset is None


def test_a_group_is_a_few_chunks_of_each_document(library: Library) -> None:
    one = [hit.document_id for hit in library.search(limit=50, window=60, group_by="document").hits]
    assert sorted(one) == sorted(f"d{number}" for number in range(30))
    two = [hit.document_id for hit in library.search(limit=60, window=60, group_by="document", group_size=2).hits]
    assert sorted(two) == sorted(2 * one)


def test_diversity_weighs_against_relevance(library: Library) -> None:
    plain = ids(library.search(limit=50))
    assert ids(library.search(limit=50, mmr=1)) == plain
    diverse = library.search(limit=50, mmr=0.2, explain=True)
    assert ids(diverse) != plain
    assert ids(diverse)[0] == plain[0]
    assert sorted(ids(diverse)) == sorted(plain)
    assert [hit.ranks["mmr"] for hit in diverse.hits] == list(range(1, 51))


def test_every_stage_is_explained(library: Library) -> None:
    library.ports = replace(library.ports, reranker=MemoryReranker())
    answer = library.search(limit=3, mmr=0.9, explain=True)
    assert [stage.stage for stage in answer.stages or ()] == ["embed", "retrieve", "graph", "rerank", "arrange"]
    candidates = [stage.candidates for stage in answer.stages or ()]
    assert (candidates[1]["fused"], candidates[3]["rerank"], candidates[4]["mmr"]) == (50, 20, 20)
    assert all(stage.ms >= 0 for stage in answer.stages or ())
    for hit in answer.hits:
        assert (
            {"fused", "rerank", "mmr"}
            <= hit.ranks.keys()
            == hit.scores.keys()
            <= {DENSE, SPARSE, "fused", "rerank", "mmr"}
        )
        assert hit.scores["fused"] == hit.score
    assert library.search(limit=3).stages is None
    assert "fused" not in library.search(limit=3).hits[0].ranks


def why(library: Library, document_id: str, **options: Any) -> Any:
    return library.search(explain_document=document_id, **options).document


def test_a_document_s_absence_has_one_reason(library: Library) -> None:
    assert why(library, "nobody").reason == "unknown"
    gone = why(library, "gone")
    assert (gone.reason, gone.detail, gone.version) == ("deleted", "it was deleted as version 1", 1)
    slow = why(library, "slow")
    assert (slow.reason, slow.state, slow.searchable_version) == ("not-indexed", "processing", None)
    assert slow.detail.startswith("it is processing as version 4 (chunk chunked, embed embedded")
    hidden = why(library, "d3", filter={"$or": [{"metadata.year": 1999}], "metadata.even": True})
    assert (hidden.reason, hidden.excluded_by) == ("excluded", "filter.$or")
    assert why(library, "d3", document_ids=["d4"]).excluded_by == "document_ids"
    unmatched = why(library, "d3", query="granite", mode="keyword")
    assert (unmatched.reason, unmatched.missing_terms) == ("no-match", ["granite"])
    assert why(library, "d3").reason == "found"


def test_what_ranks_lower_tells_by_how_much(library: Library) -> None:
    whole = library.search(query="the leave of granite 3", limit=60, window=60).hits
    last = next(
        hit.document_id for hit in reversed(whole) if hit.document_id not in {one.document_id for one in whole[:10]}
    )
    lower = why(library, last, query="the leave of granite 3", window=5)
    assert lower.reason == "ranked-lower"
    assert set(lower.missing_terms) >= {"granite"}
    assert "leave" not in lower.missing_terms
    dense = lower.standings[DENSE]
    assert (
        dense.rank == next(hit.ranks[DENSE] for hit in whole if hit.document_id == last and DENSE in hit.ranks)
        or dense.rank
    )
    assert dense.cut_off is not None
    assert (dense.score < dense.cut_off) == (dense.rank > 50)
    elsewhere = why(library, whole[30].document_id, query="the leave of granite 3", window=60, limit=2)
    assert "of the ranking; this answer has 1 to 2" in elsewhere.detail


def test_a_wrong_filter_is_a_problem_that_says_where() -> None:
    with serving() as stack:
        body = {"query": "q", "filter": {"metadata.year": {"$regex": "secret"}}}
        response = stack.http.post("/api/v1/search", json=body)
        nulls = stack.http.post("/api/v1/search", json={"query": "q", "filter": None, "mmr": None})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["loc"] == ["body", "filter"]
    assert "metadata.year.$regex is no operator; allowed are $eq" in error["msg"]
    assert "secret" not in response.text
    assert nulls.status_code == 200
