"""A language model as the judge: one chat request scores all passages (listwise; Sun et al. 2023, RankGPT)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, RootModel, SecretStr, ValidationError

from processors.errors import UnavailableError

_PROMPT = (Path(__file__).parent / "llm_v1.txt").read_text(encoding="utf-8")
_REPAIR = "That does not fit: {error}. Answer again, with the JSON object only, one score for each of 1 to {count}."
_MAX_PASSAGE_CHARS = 4000

Turn = Mapping[str, str]


class _Scores(RootModel[dict[int, Annotated[float, Field(ge=0, le=10)]]]):
    """Scores by the passage's number, from 1."""


class LlmReranker:
    """Asks a chat endpoint of the OpenAI shape, which Ollama, vLLM and llama.cpp speak too.

    Args:
        base_url: Up to and with ``/v1``.
        model: The model's name there.
        api_key: Sent as a bearer token where given.
        timeout: Seconds one answer may take; there are two at most.
    """

    def __init__(self, base_url: str, *, model: str, api_key: SecretStr | None = None, timeout: float = 30.0) -> None:
        self.name = model
        headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._client = httpx.Client(base_url=base_url, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Tenths that the model gives; of a passage, the first 4,000 characters are read.

        Raises:
            UnavailableError: The endpoint cannot be reached, refuses, or twice answers what is no scores.
        """
        if not passages:
            return np.empty(0, np.float32)
        turns = _question(query, passages)
        answer = self._ask(turns)
        try:
            return _scores(answer, len(passages))
        except ValueError as error:
            repair = _REPAIR.format(error=error, count=len(passages))
        answer = self._ask([*turns, _turn("assistant", answer), _turn("user", repair)])
        try:
            return _scores(answer, len(passages))
        except ValueError as error:
            raise UnavailableError(f"the reranking model {self.name} answers no scores: {error}") from error

    def _ask(self, turns: Sequence[Turn]) -> str:
        request = {"model": self.name, "messages": turns, "temperature": 0}
        try:
            response = self._client.post("chat/completions", json=request)
            response.raise_for_status()
            content = response.json()["choices"][0]["message"]["content"]
        except httpx.HTTPStatusError as error:
            wait = _seconds(error.response.headers.get("Retry-After"))
            status = error.response.status_code
            raise UnavailableError(f"the reranking model {self.name} answers {status}", retry_after=wait) from error
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise UnavailableError(f"the reranking model {self.name} fails: {error}") from error
        return str(content)


def _question(query: str, passages: Sequence[str]) -> list[Turn]:
    texts = [query, *(passage[:_MAX_PASSAGE_CHARS] for passage in passages)]
    fence = _fence(texts)
    names = ["query", *(f"passage {number}" for number in range(1, len(passages) + 1))]
    fenced = "\n".join(f"{fence} {name}\n{text}" for name, text in zip(names, texts, strict=True))
    return [_turn("system", _PROMPT.format(fence=fence)), _turn("user", f"{fenced}\n{fence} end")]


def _fence(texts: Sequence[str]) -> str:
    """A mark that no text can hold, since every text is part of it."""
    return "==" + hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _scores(answer: str, count: int) -> NDArray[np.float32]:
    """The scores in an answer, whatever it wraps around the JSON object.

    Raises:
        ValueError: It holds no JSON object with a score for every passage.
    """
    json_object = answer[answer.find("{") : answer.rfind("}") + 1]
    try:
        scores = _Scores.model_validate_json(json_object).root
    except ValidationError as error:
        raise ValueError(f"no JSON object of scores from 0 to 10 ({error.errors()[0]['msg']})") from error
    if scores.keys() != set(range(1, count + 1)):
        raise ValueError(f"{len(scores)} scores for {count} passages")
    return np.array([scores[number] / 10 for number in range(1, count + 1)], np.float32)


def _seconds(header: Any) -> float | None:
    try:
        return float(header)
    except (TypeError, ValueError):
        return None  # absent, or a date
