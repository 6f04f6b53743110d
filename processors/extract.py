"""The three phases of extraction: names, then the same name only once, then what the text says of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from processors.dedup import deduplicated
from processors.errors import UnavailableError
from processors.ner.recogniser import Span
from processors.relations.cooccurrence import related
from processors.relations.degrading import NOBODY, Attributed, Degrading
from processors.sentences import prose
from schemas.ids import normalised_name
from schemas.records import Mention, Relation

_UNTYPED = Attributed((), NOBODY)


class Recogniser(Protocol):
    """Finds names in texts."""

    @property
    def name(self) -> str:
        """What the extraction's pipeline calls it."""

    def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """Names of each text, in order of their place; none overlap.

        Raises:
            UnavailableError: It cannot say now.
        """


class Observer(Protocol):
    """Is told what an extraction does, in the thread that does it."""

    def phase(self, name: str, seconds: float) -> None:
        """A phase is done with a batch."""

    def found(self, mentions: int, relations: int) -> None:
        """What one batch gave."""

    def failed(self, phase: str, error: Exception) -> None:
        """A phase could not do its work; the next best took its place."""


@dataclass(frozen=True)
class Found:
    """What was found in one text, and which phases found it."""

    mentions: tuple[Mention, ...]
    relations: tuple[Relation, ...]
    pipeline: str


class _Unobserved:
    def phase(self, name: str, seconds: float) -> None:
        pass

    def found(self, mentions: int, relations: int) -> None:
        pass

    def failed(self, phase: str, error: Exception) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()


class Extractor:
    """Mentions, typed relations, and RELATED_TO between the other entities that one sentence names together.

    A phase that is unavailable does not lose a text: the fallback finds the names, and without typed relations there
    are the untyped ones. ``Found.pipeline`` says who spoke.

    Args:
        recogniser: Finds names.
        fallback: Finds them when the recogniser cannot.
        relations: Finds typed relations; None leaves them out.
        max_mentions: Of each text, so many mentions are kept, the first ones.
        observe: Told of every phase.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        fallback: Recogniser,
        relations: Degrading | None,
        max_mentions: int,
        observe: Observer = UNOBSERVED,
    ) -> None:
        self._recogniser = recogniser
        self._fallback = fallback
        self._relations = relations
        self._max_mentions = max_mentions
        self._observe = observe

    def extract(self, texts: Sequence[str]) -> list[Found]:
        """Extract from texts, in order; one output per text.

        Raises:
            PermanentError: A text is no valid Unicode.
        """
        mentions, recognised_by = self._mentions(texts)
        typed = self._typed(texts, mentions)
        found = [
            Found(tuple(of), _with_untyped(text, of, known.relations), f"{recognised_by}+{known.extractor}")
            for text, of, known in zip(texts, mentions, typed, strict=True)
        ]
        self._observe.found(sum(len(one.mentions) for one in found), sum(len(one.relations) for one in found))
        return found

    def _mentions(self, texts: Sequence[str]) -> tuple[list[list[Mention]], str]:
        begun, by = time.perf_counter(), self._recogniser
        try:
            spans = by.recognise(texts)
        except UnavailableError as error:
            self._observe.failed("ner", error)
            by = self._fallback
            spans = by.recognise(texts)
        mentions = [list(_mentions(text, of))[: self._max_mentions] for text, of in zip(texts, spans, strict=True)]
        recognised = time.perf_counter()
        self._observe.phase("ner", recognised - begun)
        mentions = [deduplicated(of) for of in mentions]
        self._observe.phase("dedup", time.perf_counter() - recognised)
        return mentions, by.name

    def _typed(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[Attributed]:
        if self._relations is None:
            return [_UNTYPED] * len(texts)
        begun = time.perf_counter()
        try:
            relations = self._relations.attributed(texts, mentions)
        except UnavailableError as error:
            self._observe.failed("relations", error)
            return [_UNTYPED] * len(texts)
        self._observe.phase("relations", time.perf_counter() - begun)
        return relations


def _mentions(text: str, spans: Sequence[Span]) -> list[Mention]:
    """Mentions of the spans that are prose and that name something."""
    visible = prose(text)
    found = []
    for span in spans:
        surface = text[span.start : span.end]
        if surface == visible[span.start : span.end] and (name := normalised_name(surface)):
            found.append(
                Mention(
                    start=span.start, end=span.end, text=surface, name=name, type=span.type, confidence=span.confidence
                )
            )
    return found


def _with_untyped(text: str, mentions: Sequence[Mention], typed: tuple[Relation, ...]) -> tuple[Relation, ...]:
    known = {frozenset((relation.source, relation.target)) for relation in typed}
    return (*typed, *related(text, mentions, besides=known))
