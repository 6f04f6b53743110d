"""Maximal marginal relevance: an order in which what comes next also says something new."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def maximal_marginal_relevance(
    relevance: Sequence[float], vectors: NDArray[np.float32], *, weight: float
) -> list[tuple[int, float]]:
    """Greedily the best of ``weight * relevance - (1 - weight) * similarity to what was chosen before``.

    Carbonell and Goldstein, SIGIR 1998. Relevance is stretched to 0..1, so that scores of any scale meet cosines as
    equals; equal scores keep the order given. Any beginning of the result is the result for that many.

    Args:
        relevance: Of each item, higher is better.
        vectors: float32[items, dimension], normalised.
        weight: The paper's lambda: 1 is relevance alone, 0 is novelty alone (behind the most relevant).

    Returns:
        The items' places in what was given, each with its score, in the new order.
    """
    if not relevance:
        return []
    wanted = _stretched(np.asarray(relevance, np.float64))
    similarity = np.full(len(wanted), -np.inf)
    order, waiting = [(int(np.argmax(wanted)), weight)], np.ones(len(wanted), bool)
    while len(order) < len(wanted):
        chosen, _ = order[-1]
        waiting[chosen] = False
        similarity = np.maximum(similarity, vectors @ vectors[chosen])
        scores = np.where(waiting, weight * wanted - (1 - weight) * similarity, -np.inf)
        best = int(np.argmax(scores))
        order.append((best, float(scores[best])))
    return order


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    least, most = values.min(), values.max()
    return (values - least) / (most - least) if most > least else np.ones_like(values)
