"""Relations read by a language model."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from processors import asking
from processors.asking import Asker, PartlyAnsweredError
from processors.breaker import Breaker
from processors.errors import UnavailableError
from processors.llm import Chat
from processors.relations.llm_question import PROMPT_CHARS, SCHEMA, VERSION, Misfit, Passage, Question, passage_of
from schemas.records import Mention, Relation
from schemas.settings import Llm

Relations = tuple[Relation, ...]


class Observer(asking.Observer, Protocol):
    """Is told what a relation extractor does, in the thread that does it."""

    def dropped(self, why: Misfit) -> None:
        """A relation that the model claims is not taken."""


class _Unobserved:
    def answered(self, seconds: float) -> None:
        pass

    def failed(self, error: UnavailableError) -> None:
        pass

    def dropped(self, why: Misfit) -> None:
        pass

    def repaired(self, chunks: int) -> None:
        pass

    def unreadable(self, chunks: int) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()


class LlmRelationExtractor:
    """Asks a chat model (``processors.asking.Asker``) what the texts say of their mentions. May be shared by threads.

    Args:
        settings: The model, and how to ask.
        breaker: Its state says whether the model is asked.
        observe: Told of answers, failures, and of what is not taken.
        chat: Who is asked, if not the one model of the settings.
    """

    def __init__(
        self,
        settings: Llm,
        *,
        breaker: Breaker | None = None,
        observe: Observer = UNOBSERVED,
        chat: Chat | None = None,
    ) -> None:
        self.name = f"llm-{VERSION}/{settings.label}"
        self.breaker = breaker or Breaker()
        self._asker: Asker[Passage, Relations] = Asker(
            settings,
            partial(Question, dropped=observe.dropped),
            schema=SCHEMA,
            prompt_chars=PROMPT_CHARS,
            empty=(),
            breaker=self.breaker,
            observe=observe,
            chat=chat,
        )

    def close(self) -> None:
        """Close the connections."""
        self._asker.close()

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[Relations]:
        """As ``RelationExtractor.relations``; of a text, the first 4,000 characters are read.

        Raises:
            PartlyAnsweredError: The model cannot be asked, or fails, about some of the texts or all.
        """
        passages = [passage_of(*pair) for pair in zip(texts, mentions, strict=True)]
        asked = [place for place, passage in enumerate(passages) if len(passage.entities) > 1]
        try:
            answers = self._asker.ask([passages[place] for place in asked])
        except PartlyAnsweredError as error:
            known = dict(zip(asked, error.answers, strict=True))
            given = [known.get(place, ()) for place in range(len(texts))]
            raise PartlyAnsweredError(str(error), answers=given, retry_after=error.retry_after) from error
        found = dict(zip(asked, answers, strict=True))
        return [found.get(place, ()) for place in range(len(texts))]
