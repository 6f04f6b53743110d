"""Fusing the two searches: each counts for as much as its own scores tell apart."""

import math
from collections.abc import Mapping

from schemas.storage import DENSE, SPARSE

# From 0.07 to 0.1, no tuning set falls behind the better of its two searches (tests/eval_retrieval.py --tune).
BM25_WEIGHT = 0.09


def fuse(
    scores: Mapping[str, Mapping[str, float]], *, limit: int, bm25_weight: float = BM25_WEIGHT
) -> list[tuple[str, float]]:
    """Add up scores instead of ranks: ``cosine + bm25_weight * bm25 / sqrt(best bm25)``.

    A linear combination of scores (Bruch, Gai and Ingber, TOIS 2023). Ranks forget how far one passage is ahead of
    the next: of an embedding that hardly speaks the query's language, whose cosines are all alike, they make as much
    as of the BM25 scores that single a passage out. That is why cosines are not stretched to a common range here.
    BM25 scores grow with the number of the query's terms; the root halves that growth, and leaves a chance match of
    one common word less than a real one.

    Args:
        scores: By search, ``dense`` (cosine similarity) or ``bm25``, the score of each id that it found.
        limit: How many ids each search was asked for. An id that it did not find counts as the worst one that it
            found, or as 0 if it found fewer than that, for there was nothing more to find.
        bm25_weight: Larger for an embedding model whose cosines differ more than those of all-MiniLM-L6-v2.

    Returns:
        Every id with its score, best first; equal scores by id, so the result never depends on the mappings' order.

    >>> [name for name, _ in fuse({"dense": {"a": 0.52, "b": 0.5}, "bm25": {"b": 9.0, "c": 2.0}}, limit=2)]
    ['b', 'a', 'c']
    """
    cosines, bm25 = scores.get(DENSE, {}), scores.get(SPARSE, {})
    scale = bm25_weight / math.sqrt(max(*bm25.values(), 1.0, 1.0))
    no_cosine, no_bm25 = _missing(cosines, limit), _missing(bm25, limit)
    fused = {
        found: cosines.get(found, no_cosine) + scale * bm25.get(found, no_bm25)
        for found in cosines.keys() | bm25.keys()
    }
    return sorted(fused.items(), key=lambda scored: (-scored[1], scored[0]))


def _missing(scores: Mapping[str, float], limit: int) -> float:
    return min(scores.values()) if 0 < limit <= len(scores) else 0.0
