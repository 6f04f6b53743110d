"""A language model as the judge: one chat request scores all passages (listwise; Sun et al. 2023, RankGPT)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, RootModel, ValidationError

from processors.errors import UnavailableError
from processors.llm import Chat, Turn, fence, json_object, turn

_PROMPT = (Path(__file__).parent / "llm_v1.txt").read_text(encoding="utf-8")
_REPAIR = "That does not fit: {error}. Answer again, with the JSON object only, one score for each of 1 to {count}."
_MAX_PASSAGE_CHARS = 4000


class _Scores(RootModel[dict[int, Annotated[float, Field(ge=0, le=10)]]]):
    """Scores by the passage's number, from 1."""


class LlmReranker:
    """Asks a language model; two answers at most."""

    def __init__(self, chat: Chat) -> None:
        self.name = chat.name
        self._chat = chat

    def close(self) -> None:
        """Close the connections."""
        self._chat.close()

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Tenths that the model gives; of a passage, the first 4,000 characters are read.

        Raises:
            UnavailableError: The endpoint cannot be reached, refuses, or twice answers what is no scores.
        """
        if not passages:
            return np.empty(0, np.float32)
        turns = _question(query, passages)
        answer = self._chat.ask(turns)
        try:
            return _scores(answer, len(passages))
        except ValueError as error:
            repair = _REPAIR.format(error=error, count=len(passages))
        answer = self._chat.ask([*turns, turn("assistant", answer), turn("user", repair)])
        try:
            return _scores(answer, len(passages))
        except ValueError as error:
            raise UnavailableError(f"the reranking model {self.name} answers no scores: {error}") from error


def _question(query: str, passages: Sequence[str]) -> list[Turn]:
    texts = [query, *(passage[:_MAX_PASSAGE_CHARS] for passage in passages)]
    mark = fence(texts)
    names = ["query", *(f"passage {number}" for number in range(1, len(passages) + 1))]
    fenced = "\n".join(f"{mark} {name}\n{text}" for name, text in zip(names, texts, strict=True))
    return [turn("system", _PROMPT.format(fence=mark)), turn("user", f"{fenced}\n{mark} end")]


def _scores(answer: str, count: int) -> NDArray[np.float32]:
    """The scores in an answer, whatever it wraps around the JSON object.

    Raises:
        ValueError: It holds no JSON object with a score for every passage.
    """
    try:
        scores = _Scores.model_validate_json(json_object(answer)).root
    except ValidationError as error:
        raise ValueError(f"no JSON object of scores from 0 to 10 ({error.errors()[0]['msg']})") from error
    if scores.keys() != set(range(1, count + 1)):
        raise ValueError(f"{len(scores)} scores for {count} passages")
    return np.array([scores[number] / 10 for number in range(1, count + 1)], np.float32)
