import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.mmr import maximal_marginal_relevance

SIMILAR = np.array([[1, 0], [0.99, 0.141], [0, 1]], np.float32)  # the first two say much the same


def _order(relevance: list[float], vectors: np.ndarray, weight: float) -> list[int]:
    return [place for place, _ in maximal_marginal_relevance(relevance, vectors, weight=weight)]


def test_what_says_the_same_comes_later() -> None:
    assert _order([0.9, 0.8, 0.5], SIMILAR, 1.0) == [0, 1, 2]
    assert _order([0.9, 0.8, 0.5], SIMILAR, 0.5) == [0, 2, 1]
    assert _order([0.9, 0.8, 0.5], SIMILAR, 0.0) == [0, 2, 1]


def test_a_score_is_the_paper_s() -> None:
    scores = dict(maximal_marginal_relevance([1.0, 0.5, 0.0], SIMILAR, weight=0.7))
    assert scores == pytest.approx({0: 0.7, 1: 0.7 * 0.5 - 0.3 * 0.99, 2: -0.3 * 0.141}, abs=1e-6)


def test_the_scale_of_relevance_is_no_matter_and_ties_keep_their_order() -> None:
    assert _order([-3, -8, -20], SIMILAR, 0.6) == _order([0.9, 0.9 - 5 / 40, 0.9 - 17 / 40], SIMILAR, 0.6)
    assert _order([1, 1, 1], np.eye(3, dtype=np.float32), 0.5) == [0, 1, 2]
    assert _order([], np.empty((0, 2), np.float32), 0.5) == []


@given(st.lists(st.floats(-50, 50, width=16), min_size=1, max_size=12), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_item_once_the_most_relevant_first_and_each_the_best_of_those_left(
    relevance: list[float], weight: float, seed: int
) -> None:
    vectors = np.random.default_rng(seed).standard_normal((len(relevance), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = _order(relevance, vectors, weight)
    assert sorted(order) == list(range(len(relevance)))
    assert relevance[order[0]] == max(relevance)
    if weight == 1:
        assert order == sorted(order, key=lambda place: (-relevance[place], place))
