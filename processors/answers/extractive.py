"""An answer without a language model: the sentences that say most, in the documents' own words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from processors.answers.evidence import Evidence, Scores, Words
from processors.answers.sources import Sentence
from schemas.records import Vector

# Tuned on the even articles of XQuAD in English and German (tests/eval_answers.py says how it does on the odd ones).
_COVERAGE_WEIGHT = 1.5
_PASSAGE_WEIGHT = 0.1  # less for each place that search put the passage further down
_SAME = 0.9  # cosine above which a sentence says again what another says


def relevance(evidence: Evidence, words: Words, vector: Vector) -> Scores:
    """How well each sentence answers a question with these words and this vector."""
    place = np.array(evidence.numbers, np.float64) - 1
    return evidence.cosines(vector) + _COVERAGE_WEIGHT * evidence.coverage(words) - _PASSAGE_WEIGHT * place


def quotes(evidence: Evidence, scores: Scores, *, limit: int) -> list[Sentence]:
    """The best sentences, none twice in other words, in the order of the passages and of their sentences."""
    chosen: list[int] = []
    for place in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == limit:
            break
        if not chosen or _likest(evidence.vectors, place, chosen) < _SAME:
            chosen.append(place)
    return [evidence.sentences[place] for place in sorted(chosen)]


def _likest(vectors: NDArray[np.float32], place: int, chosen: Sequence[int]) -> float:
    return float((vectors[chosen] @ vectors[place]).max())
