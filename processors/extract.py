"""The three phases of extraction: names, then the same name only once, then what the text says of them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from processors.breaker import Breaker
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


@dataclass(frozen=True)
class Found:
    """What was found in one text.

    Args:
        mentions: In order of their place.
        relations: Between the entities that the mentions name.
        pipeline: Who found it.
        degraded: Phases whose first choice could not say anything of this text, with why.
    """

    mentions: tuple[Mention, ...]
    relations: tuple[Relation, ...]
    pipeline: str
    degraded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """A phase as the settings want it.

    Args:
        chosen: Its first choice.
        missing: Why that could not be loaded, if it could not.
        breaker: Whether it is asked, if it is a server.
    """

    chosen: str
    missing: str | None = None
    breaker: Breaker | None = None


class Observer(Protocol):
    """Is told what an extraction does, in the thread that does it."""

    def chosen(self, pipeline: str, phases: Mapping[str, Phase]) -> None:
        """What the settings ask for."""

    def phase(self, name: str, seconds: float, *, pipeline: str) -> None:
        """A phase of a pipeline is done with a batch."""

    def found(self, found: Sequence[Found]) -> None:
        """What one batch gave."""

    def failed(self, phase: str, error: Exception) -> None:
        """A phase could not do its work; the next best took its place."""


class _Unobserved:
    def chosen(self, pipeline: str, phases: Mapping[str, Phase]) -> None:
        pass

    def phase(self, name: str, seconds: float, *, pipeline: str) -> None:
        pass

    def found(self, found: Sequence[Found]) -> None:
        pass

    def failed(self, phase: str, error: Exception) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()


class Pipeline(Protocol):
    """Texts to mentions and relations."""

    def extract(self, texts: Sequence[str]) -> list[Found]:
        """Extract from texts, in order; one output per text.

        Raises:
            PermanentError: A text is no valid Unicode.
        """


class Missing:
    """Stands for a model that could not be loaded: it never answers."""

    def __init__(self, name: str, why: Exception) -> None:
        self.name = name
        self._why = why

    def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """Raise ``UnavailableError``."""
        raise UnavailableError(str(self._why))

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[tuple[Relation, ...]]:
        """Raise ``UnavailableError``."""
        raise UnavailableError(str(self._why))


class Extractor:
    """Mentions, typed relations, and RELATED_TO between the other entities that one sentence names together.

    A phase that is unavailable does not lose a text: the fallback finds the names, and without typed relations there
    are the untyped ones. ``Found.pipeline`` says who spoke, ``Found.degraded`` who should have.

    Args:
        recogniser: Finds names.
        fallback: Finds them when the recogniser cannot.
        relations: Finds typed relations; None leaves them out.
        max_mentions: Of each text, so many mentions are kept, the first ones.
        pipeline: What the observer is told that this is.
        observe: Told of every phase.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        fallback: Recogniser,
        relations: Degrading | None,
        max_mentions: int,
        pipeline: str = "three_phase",
        observe: Observer = UNOBSERVED,
    ) -> None:
        self._recogniser = recogniser
        self._fallback = fallback
        self._relations = relations
        self._max_mentions = max_mentions
        self._pipeline = pipeline
        self._observe = observe

    def extract(self, texts: Sequence[str]) -> list[Found]:
        """As ``Pipeline.extract``."""
        found = self.read(texts)
        self._observe.found(found)
        return found

    def read(self, texts: Sequence[str]) -> list[Found]:
        """Extract, as a part of another pipeline, which tells the observer what was found."""
        spans, recognised_by, why = self._spans(texts)
        mentions = self._mentions(texts, spans)
        return [
            Found(
                tuple(of),
                with_untyped(text, of, known.relations),
                f"{recognised_by}+{known.extractor}",
                {phase: reason for phase, reason in (("ner", why), ("relations", known.why)) if reason},
            )
            for text, of, known in zip(texts, mentions, self._typed(texts, mentions), strict=True)
        ]

    def _spans(self, texts: Sequence[str]) -> tuple[list[list[Span]], str, str]:
        """Names, who found them, and why it was not the recogniser."""
        begun, by, why = time.perf_counter(), self._recogniser, ""
        try:
            spans = by.recognise(texts)
        except UnavailableError as error:
            self._observe.failed("ner", error)
            by, why = self._fallback, str(error)
            spans = by.recognise(texts)
        self._observe.phase("ner", time.perf_counter() - begun, pipeline=self._pipeline)
        return spans, by.name, why

    def _mentions(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[list[Mention]]:
        begun = time.perf_counter()
        mentions = [
            deduplicated(mentions_of(text, of)[: self._max_mentions]) for text, of in zip(texts, spans, strict=True)
        ]
        self._observe.phase("dedup", time.perf_counter() - begun, pipeline=self._pipeline)
        return mentions

    def _typed(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[Attributed]:
        if self._relations is None:
            return [_UNTYPED] * len(texts)
        begun = time.perf_counter()
        try:
            relations = self._relations.attributed(texts, mentions)
        except UnavailableError as error:
            self._observe.failed("relations", error)
            return [Attributed((), NOBODY, str(error))] * len(texts)
        self._observe.phase("relations", time.perf_counter() - begun, pipeline=self._pipeline)
        return relations


def mentions_of(text: str, spans: Sequence[Span]) -> list[Mention]:
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


def with_untyped(text: str, mentions: Sequence[Mention], typed: tuple[Relation, ...]) -> tuple[Relation, ...]:
    """The typed relations, and RELATED_TO between the other entities that one sentence names."""
    known = {frozenset((relation.source, relation.target)) for relation in typed}
    return (*typed, *related(text, mentions, besides=known))
