import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.fuse import BM25_WEIGHT, fuse

_ids = st.sampled_from("abcdefgh")
_scores = st.fixed_dictionaries(
    {},
    optional={
        "dense": st.dictionaries(_ids, st.floats(-1, 1)),
        "bm25": st.dictionaries(_ids, st.floats(0, 60)),
    },
)


def _order(scores: dict[str, dict[str, float]], limit: int = 50) -> str:
    return "".join(found for found, _ in fuse(scores, limit=limit))


def test_score_is_the_cosine_and_the_scaled_bm25() -> None:
    fused = dict(fuse({"dense": {"a": 0.5, "b": 0.4}, "bm25": {"b": 16.0, "a": 4.0}}, limit=2))
    assert fused == pytest.approx({"a": 0.5 + BM25_WEIGHT * 1, "b": 0.4 + BM25_WEIGHT * 4})
    heavier = dict(fuse({"dense": {"a": 0.5}, "bm25": {"a": 16.0}}, limit=2, bm25_weight=1))
    assert heavier == pytest.approx({"a": 4.5})


def test_what_was_cut_off_counts_as_the_worst_found_and_what_was_never_there_as_nothing() -> None:
    scores = {"dense": {"a": 0.5, "b": 0.4}, "bm25": {"b": 16.0, "c": 4.0}}
    assert dict(fuse(scores, limit=2)) == pytest.approx(
        {"a": 0.5 + BM25_WEIGHT, "b": 0.4 + 4 * BM25_WEIGHT, "c": 0.4 + BM25_WEIGHT}
    )
    assert dict(fuse(scores, limit=3)) == pytest.approx({"a": 0.5, "b": 0.4 + 4 * BM25_WEIGHT, "c": BM25_WEIGHT})


def test_cosines_that_are_all_alike_leave_it_to_bm25() -> None:
    bm25 = {"d": 20.0, "c": 9.0, "b": 8.5, "a": 8.0}
    assert _order({"dense": {"a": 0.48, "b": 0.46, "c": 0.44, "d": 0.42}, "bm25": bm25}) == "dabc"
    assert _order({"dense": {"a": 0.8, "b": 0.5, "c": 0.3, "d": 0.2}, "bm25": bm25})[0] == "a"


def test_chance_match_of_one_common_word_weighs_little() -> None:
    assert _order({"dense": {"a": 0.5, "b": 0.3}, "bm25": {"b": 0.9}}) == "ab"


@pytest.mark.parametrize("search", ["dense", "bm25"])
def test_one_search_alone_keeps_its_order(search: str) -> None:
    scores = {"a": 0.2, "b": 0.7, "c": 0.1}
    assert _order({search: scores}) == _order({search: scores}, limit=3) == "bac"
    assert _order({search: scores, "bm25" if search == "dense" else "dense": {}}) == "bac"


def test_nothing_in_nothing_out() -> None:
    assert fuse({}, limit=5) == fuse({"dense": {}, "bm25": {}}, limit=5) == []


@given(_scores, st.integers(1, 10))
def test_equal_scores_go_by_id_and_the_order_of_mappings_is_no_matter(
    scores: dict[str, dict[str, float]], limit: int
) -> None:
    fused = fuse(scores, limit=limit)
    backwards = {search: dict(reversed(found.items())) for search, found in reversed(scores.items())}
    assert fused == fuse(backwards, limit=limit)
    assert fused == sorted(fused, key=lambda scored: (-scored[1], scored[0]))
    assert {found for found, _ in fused} == {found for search in scores.values() for found in search}
    assert all(math.isfinite(score) for _, score in fused)
