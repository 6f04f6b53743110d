"""Precision, recall and F1 of whole mentions, exact in boundaries and type, with 95 % intervals by bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from processors.ner.recogniser import Span
from training.corpora import Gold

TypesByLabel = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Counts:
    """Of each text: mentions found rightly, found, and to be found."""

    right: NDArray[np.int64]
    found: NDArray[np.int64]
    wanted: NDArray[np.int64]

    def scores(self, chosen: NDArray[np.int64] | slice = slice(None)) -> tuple[float, float, float]:
        """Micro precision, recall and F1 over the chosen texts."""
        right, found, wanted = (int(counts[chosen].sum()) for counts in (self.right, self.found, self.wanted))
        return right / max(found, 1), right / max(wanted, 1), 2 * right / max(found + wanted, 1)

    def intervals(self, draws: int = 1000) -> list[tuple[float, float]]:
        """2.5 and 97.5 percentiles of the three over texts drawn with replacement."""
        chance = np.random.default_rng(0)
        drawn = [self.scores(chance.integers(0, len(self.right), len(self.right))) for _ in range(draws)]
        low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
        return list(zip(low.tolist(), high.tolist(), strict=True))


def count(golds: Sequence[Gold], predictions: Sequence[Sequence[Span]], mapping: TypesByLabel) -> Counts:
    """Compare with a data set's mentions.

    A mention is right where boundaries agree and its type is one that the label may stand for. Types that no label of
    the mapping stands for are left out on our side; labels outside of the mapping are left out on theirs, with what we
    found there. A label that stands for no type is one to be left alone: what we found there is wrong.
    """
    types = {type_ for possible in mapping.values() for type_ in possible}
    rows = [_compare(gold, spans, mapping, types) for gold, spans in zip(golds, predictions, strict=True)]
    return Counts(*np.array(rows, np.int64).reshape(-1, 3).T)


def _compare(gold: Gold, spans: Sequence[Span], mapping: TypesByLabel, types: set[str]) -> tuple[int, int, int]:
    wanted = {(start, end): mapping[kind] for start, end, kind in gold.mentions if mapping.get(kind)}
    ignored = [(start, end) for start, end, kind in gold.mentions if kind not in mapping]
    found = [
        span
        for span in spans
        if span.type in types and all(span.end <= start or end <= span.start for start, end in ignored)
    ]
    right = sum(span.type in wanted.get((span.start, span.end), ()) for span in found)
    return right, len(found), len(wanted)
