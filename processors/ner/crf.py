"""A chain over labels (Lafferty et al. 2001) in numpy: the best labels, and how probable each mention in them is."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from processors.ner import labels
from processors.ner.labels import LABELS, OUTSIDE

Floats = NDArray[np.float32]


def viterbi(scores: Floats, lengths: Sequence[int], starts: Floats, transitions: Floats) -> list[list[int]]:
    """Labels of the highest score for each text: scores [texts, words, labels], padded behind ``lengths``."""
    best = starts + scores[:, 0]
    came_from = np.zeros(scores.shape, np.int64)
    ends = [best]
    for word in range(1, scores.shape[1]):
        ways = best[:, :, None] + transitions
        came_from[:, word] = ways.argmax(1)
        best = ways.max(1) + scores[:, word]
        ends.append(best)
    return [_path(came_from[text], int(ends[length - 1][text].argmax()), length) for text, length in enumerate(lengths)]


def _path(came_from: NDArray[np.int64], last: int, length: int) -> list[int]:
    path = [last]
    for word in range(length - 1, 0, -1):
        path.append(int(came_from[word, path[-1]]))
    return path[::-1]


def mentions(path: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """First word, word behind the last, and type of each mention that labels describe."""
    start = 0
    for word, label in enumerate([*path, OUTSIDE]):
        if word > start and path[start] != OUTSIDE and (label == OUTSIDE or label % 2 == 1):
            yield start, word, (path[start] - 1) // 2
        if label == OUTSIDE or label % 2 == 1:
            start = word


class Marginals:
    """Probabilities of label sequences in a text, by the forward-backward recursion.

    Args:
        scores: [words, labels] of one text.
        starts: [labels]
        transitions: [labels, labels]
    """

    def __init__(self, scores: Floats, starts: Floats, transitions: Floats) -> None:
        self._scores = scores.astype(np.float64)
        self._transitions = np.exp(transitions.astype(np.float64))
        self._log_transitions = transitions.astype(np.float64)
        self._forward = np.empty((len(scores), len(LABELS)))
        self._backward = np.zeros((len(scores), len(LABELS)))
        self._forward[0] = starts + self._scores[0]
        for word in range(1, len(scores)):
            self._forward[word] = _log_product(self._forward[word - 1], self._transitions) + self._scores[word]
        for word in range(len(scores) - 2, -1, -1):
            behind = self._backward[word + 1] + self._scores[word + 1]
            self._backward[word] = _log_product(behind, self._transitions.T)
        self._total = np.logaddexp.reduce(self._forward[-1])

    def of_mention(self, start: int, end: int, type_: int) -> float:
        """Probability that words ``start`` to ``end`` are one whole mention of this type."""
        begin, inside = labels.begin(type_), labels.inside(type_)
        log = self._forward[start, begin]
        for word in range(start + 1, end):
            before = begin if word == start + 1 else inside
            log += self._log_transitions[before, inside] + self._scores[word, inside]
        last = inside if end - start > 1 else begin
        if end == len(self._scores):
            return float(np.exp(log - self._total))
        behind = self._log_transitions[last] + self._scores[end] + self._backward[end]
        behind[inside] = -np.inf  # it goes on
        return float(np.exp(log + np.logaddexp.reduce(behind) - self._total))


def _log_product(logs: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product of what has these logarithms with a matrix, as logarithms."""
    highest = logs.max()
    with np.errstate(divide="ignore"):
        product: NDArray[np.float64] = np.log(np.exp(logs - highest) @ matrix) + highest
    return product
