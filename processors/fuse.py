"""Fusing rankings: what several searches agree on comes first."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

_K = 60


def fuse(rankings: Mapping[str, Sequence[str]], weights: Mapping[str, float] | None = None) -> list[tuple[str, float]]:
    """Weighted reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) with k = 60.

    Args:
        rankings: Ids by the name of their ranking, best first, each id once.
        weights: By ranking; 1 where absent.

    Returns:
        Every id with its score, best first; equal scores by id, so the result never depends on the mapping's order.

    >>> [name for name, _ in fuse({"dense": ["a", "b"], "bm25": ["b", "c"]})]
    ['b', 'a', 'c']
    """
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for name, ids in rankings.items():
        weight = (weights or {}).get(name, 1.0)
        for rank, ranked in enumerate(ids, start=1):
            shares[ranked].append(weight / (_K + rank))
    scores = {ranked: math.fsum(share) for ranked, share in shares.items()}
    return sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))
