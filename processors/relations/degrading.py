"""A second reader of relations for the texts that the first cannot say anything of now."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from processors.asking import PartlyAnsweredError
from processors.errors import UnavailableError
from processors.relations import RelationExtractor
from schemas.records import Mention, Relation

NOBODY = "none"


@dataclass(frozen=True, slots=True)
class Attributed:
    """The relations of a text, and the name of the extractor that read them, ``NOBODY`` if none could.

    ``why`` is why it was not the first choice.
    """

    relations: tuple[Relation, ...]
    extractor: str
    why: str = ""


def _unobserved(error: UnavailableError, texts: int) -> None:
    pass


class Degrading:
    """Asks the first extractor, and for the texts that it cannot answer for now, the second, if there is one.

    Args:
        first: Which is better.
        second: Which is there when the first is not.
        observe: Told, each time, why the first does not answer and for how many texts.
    """

    def __init__(
        self,
        first: RelationExtractor,
        second: RelationExtractor | None,
        *,
        observe: Callable[[UnavailableError, int], None] = _unobserved,
    ) -> None:
        self._first = first
        self._second = second
        self._observe = observe

    def attributed(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[Attributed]:
        """Relations of each text, in the texts' order, as ``RelationExtractor.relations`` reads them.

        Raises:
            UnavailableError: The second cannot say now either.
        """
        try:
            answers = [*self._first.relations(texts, mentions)]
        except PartlyAnsweredError as error:
            return self._completed(error.answers, error, texts, mentions)
        except UnavailableError as error:
            return self._completed([None] * len(texts), error, texts, mentions)
        return [Attributed(answer, self._first.name) for answer in answers]

    def _completed(
        self,
        answers: Sequence[tuple[Relation, ...] | None],
        error: UnavailableError,
        texts: Sequence[str],
        mentions: Sequence[Sequence[Mention]],
    ) -> list[Attributed]:
        open_ones = [position for position, answer in enumerate(answers) if answer is None]
        self._observe(error, len(open_ones))
        left = [texts[one] for one in open_ones], [mentions[one] for one in open_ones]
        seconds = self._second_answers(*left, why=str(error))
        by_second = dict(zip(open_ones, seconds, strict=True))
        return [
            by_second[position] if answer is None else Attributed(answer, self._first.name)
            for position, answer in enumerate(answers)
        ]

    def _second_answers(
        self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]], *, why: str
    ) -> list[Attributed]:
        if self._second is None:
            return [Attributed((), NOBODY, why) for _ in texts]
        return [Attributed(answer, self._second.name, why) for answer in self._second.relations(texts, mentions)]
