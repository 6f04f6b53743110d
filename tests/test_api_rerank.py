"""Reranking: on its own, and in searches."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import MemoryReranker, Stack, serving


def with_reranker(stack: Stack) -> None:
    stack.reranker = MemoryReranker()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with serving(change=with_reranker) as running:
        yield running


def rerank(stack: Stack, **body: Any) -> Any:
    return stack.http.post("/v1/rerank", json={"query": "q", "documents": ["a 2", "b 9", "c 5"], **body})


def test_documents_come_back_by_relevance(stack: Stack) -> None:
    answer = rerank(stack).json()
    assert [(one["index"], round(one["relevance_score"], 4)) for one in answer["results"]] == [
        (1, 0.09),
        (2, 0.05),
        (0, 0.02),
    ]
    assert [one["index"] for one in rerank(stack, top_n=1, model="last-number").json()["results"]] == [1]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["x"] * 257}, "257 documents are more than the 256"),
        ({"model": "rerank-v9"}, "the reranker here is 'last-number'"),
        ({"top_n": 0}, "top_n"),
        ({"query": ""}, "query"),
    ],
)
def test_what_cannot_be_reranked_is_refused(stack: Stack, body: dict[str, Any], complaint: str) -> None:
    answer = rerank(stack, **body)
    assert answer.status_code == 422
    assert complaint in answer.text


def test_the_best_candidates_of_a_search_are_reordered(stack: Stack) -> None:
    answer = stack.http.post("/api/v1/search", json={"query": "q", "limit": 30}).json()
    assert answer["reranked"] is True
    places = [hit["chunk_index"] for hit in answer["hits"]]
    assert places == [*range(19, -1, -1), *range(20, 30)], "20 candidates are reranked, the others stay behind them"
    assert answer["hits"][0]["scores"]["rerank"] == pytest.approx(0.19)
    few = stack.http.post("/api/v1/search", json={"query": "q", "limit": 2}).json()
    assert [hit["chunk_index"] for hit in few["hits"]] == [19, 18]


def test_a_search_may_go_without(stack: Stack) -> None:
    answer = stack.http.post("/api/v1/search", json={"query": "q", "limit": 3, "rerank": False}).json()
    assert (answer["reranked"], [hit["chunk_index"] for hit in answer["hits"]]) == (False, [0, 1, 2])


def test_a_failing_reranker_leaves_the_order_and_is_told() -> None:
    with serving(change=with_reranker) as stack:
        assert stack.reranker is not None
        stack.reranker.down = True
        answer = stack.http.post("/api/v1/search", json={"query": "q", "limit": 3}).json()
        assert (answer["reranked"], [hit["chunk_index"] for hit in answer["hits"]]) == (False, [0, 1, 2])
        refused = rerank(stack)
        assert refused.status_code == 503
        assert "secret" not in refused.text


def test_without_a_reranker_the_route_says_which_setting() -> None:
    with serving() as stack:
        answer = rerank(stack)
        assert answer.status_code == 501
        assert "AEGIS_RERANKING__BACKEND" in answer.text
        assert stack.http.post("/api/v1/search", json={"query": "q"}).json()["reranked"] is False
