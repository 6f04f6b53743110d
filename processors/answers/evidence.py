"""How near a question or a claim is to the sentences of the sources: by meaning, and by words."""

import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from processors.answers.sources import Sentence
from schemas.records import Vector
from schemas.storage import SparseVector

_WORD = re.compile(r"[^\W_]+(?:[.,]\d+)*")

Words = Sequence[frozenset[int]]
Encode = Callable[[str], SparseVector]
Scores = NDArray[np.float64]


def words_of(text: str, encode: Encode) -> Words:
    """The words of a text that are no stop words, each as its stems in every language that is indexed."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(text))
    stems = dict.fromkeys(frozenset(encode(word)[0]) for word in words)
    return [word for word in stems if word]


class Evidence:
    """The sentences that an answer may stand on.

    Args:
        sentences: In order.
        vectors: float32[len(sentences), dimension], of unit length.
        encode: Text to the weights of its stems, as the index has them.
    """

    def __init__(self, sentences: Sequence[Sentence], vectors: NDArray[np.float32], encode: Encode) -> None:
        self.sentences = sentences
        self.vectors = vectors
        self._encode = encode
        self._stems = [frozenset(encode(sentence.text)[0]) for sentence in sentences]

    @cached_property
    def numbers(self) -> list[int]:
        """The number of each sentence's source."""
        return [sentence.source.number for sentence in self.sentences]

    def words(self, text: str) -> Words:
        """As ``words_of``."""
        return words_of(text, self._encode)

    def cosines(self, vector: Vector) -> Scores:
        """Cosine similarity of each sentence to a text's vector."""
        return (self.vectors @ vector).astype(np.float64)

    def share_of(self, words: Words, places: Sequence[int]) -> float:
        """The share of the words that these sentences have together."""
        stems = frozenset[int]().union(*(self._stems[place] for place in places))
        return sum(bool(word & stems) for word in words) / max(len(words), 1)

    def relevance(self, words: Words, vector: Vector) -> float:
        """From 0 to 2, how far anything here is about a text: the best cosine, and the best share of its words."""
        if not self.sentences:
            return 0.0
        best = max(self.share_of(words, [place]) for place in range(len(self._stems)))
        return float(self.cosines(vector).max()) + best

    def coverage(self, words: Words) -> Scores:
        """The share of the words that each sentence has, a rare one counting for more; 0 without words."""
        found = np.array([[bool(word & stems) for word in words] for stems in self._stems], bool)
        if not words or not self._stems:
            return np.zeros(len(self._stems))
        with_it = found.sum(axis=0)
        idf = np.log(1 + (len(self._stems) - with_it + 0.5) / (with_it + 0.5))
        share: Scores = found @ idf / max(float(idf.sum()), math.ulp(1.0))
        return share
