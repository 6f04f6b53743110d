"""The order of hits after the searches: a reranker's, a diverse one, a few of each document."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from api.retrievers.hits import Hit
from processors.mmr import maximal_marginal_relevance
from schemas.records import Vector


def reranked(hits: Sequence[Hit], scores: Sequence[float]) -> list[Hit]:
    """The first hits by their new scores, ties as they were, then those that were not scored."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    first = [_with_score(hits[place], "rerank", scores[place]) for place in order]
    return [*first, *hits[len(scores) :]]


def diversified(hits: Sequence[Hit], vectors: Mapping[str, Vector], *, weight: float) -> list[Hit]:
    """The hits by maximal marginal relevance; those last, as they were, that have no vector or were not reranked."""
    score = "rerank" if any("rerank" in hit.scores for hit in hits) else None
    compared = [hit for hit in hits if hit.chunk_id in vectors and (score is None or score in hit.scores)]
    if not compared:
        return list(hits)
    relevance = [hit.scores[score] if score else hit.score for hit in compared]
    rows = np.stack([vectors[hit.chunk_id] for hit in compared])
    order = maximal_marginal_relevance(relevance, rows, weight=weight)
    first = [_with_score(compared[place], "mmr", value) for place, value in order]
    taken = {hit.chunk_id for hit in first}
    return [*first, *(hit for hit in hits if hit.chunk_id not in taken)]


def grouped(hits: Sequence[Hit], *, size: int) -> list[Hit]:
    """At most ``size`` hits of each document, in order."""
    seen: Counter[str] = Counter()
    kept = []
    for hit in hits:
        seen[hit.document_id] += 1
        if seen[hit.document_id] <= size:
            kept.append(hit)
    return kept


def marked(hits: Sequence[Hit], stage: str) -> list[Hit]:
    """The hits with their places in this order, as far as the stage has scored them."""
    return [
        replace(hit, ranks={**hit.ranks, stage: rank}) if stage in hit.scores else hit
        for rank, hit in enumerate(hits, start=1)
    ]


def as_fused(hits: Sequence[Hit]) -> list[Hit]:
    """The hits with the fused score among the others, and their places by it."""
    return marked([_with_score(hit, "fused", hit.score) for hit in hits], "fused")


def _with_score(hit: Hit, stage: str, score: float) -> Hit:
    return replace(hit, scores={**hit.scores, stage: score})
