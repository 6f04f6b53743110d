import math

from hypothesis import given
from hypothesis import strategies as st

from processors.fuse import fuse

_rankings = st.dictionaries(
    st.sampled_from(["dense", "bm25", "graph"]), st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)
)


def test_scores_are_reciprocal_ranks() -> None:
    fused = fuse({"dense": ["a", "b"], "bm25": ["b", "c"]}, {"bm25": 2.0})
    assert [name for name, _ in fused] == ["b", "c", "a"]
    assert math.isclose(fused[0][1], 1 / 62 + 2 / 61)
    assert fused[1:] == [("c", 2 / 62), ("a", 1 / 61)]


def test_nothing_in_nothing_out() -> None:
    assert fuse({}) == fuse({"dense": []}) == []


@given(_rankings)
def test_equal_scores_go_by_id_and_the_order_of_rankings_is_no_matter(rankings: dict[str, list[str]]) -> None:
    fused = fuse(rankings)
    assert fused == fuse(dict(reversed(rankings.items())))
    assert fused == sorted(fused, key=lambda scored: (-scored[1], scored[0]))
    assert {name for name, _ in fused} == {name for ranking in rankings.values() for name in ranking}
