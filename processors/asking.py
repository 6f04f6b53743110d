"""A language model is asked about several passages at once, and never taken at its word."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from processors.breaker import Breaker
from processors.errors import UnavailableError
from processors.llm import Chat, ChatModel, RefusedError, Schema, Turn, json_object
from schemas.settings import Llm

_CHARS_PER_TOKEN = 3
_ANSWER_SHARE = 4  # of the tokens of question and answer, the answer may take one in four


class HasChars(Protocol):
    """What a question may hold."""

    @property
    def chars(self) -> int:
        """How much room it takes in a question, about."""


Passage = TypeVar("Passage", bound=HasChars)
Answer = TypeVar("Answer")


class PartlyAnsweredError(UnavailableError, Generic[Answer]):
    """Some passages were answered for: ``answers`` has None for each of the others."""

    def __init__(self, message: str, *, answers: Sequence[Answer | None], retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.answers = answers


class Question(Protocol[Answer]):
    """What is asked about some passages, which have numbers from 1 in it."""

    def turns(self, complaint: str) -> list[Turn]:
        """What is said to the model; ``complaint`` is what was wrong with its last answer, if something was."""

    def answers(self, said: str) -> dict[int, Answer]:
        """What the model says of which passage; what it says in another shape is left out.

        Raises:
            ValueError: Nothing of it can be read.
        """


class Observer(Protocol):
    """Is told what asking does, in the thread that does it."""

    def answered(self, seconds: float) -> None:
        """The model answered one question, whether of use or not."""

    def failed(self, error: UnavailableError) -> None:
        """One try gave no answer."""

    def repaired(self, chunks: int) -> None:
        """The answer says nothing of use about these chunks; each is asked about again, alone."""

    def unreadable(self, chunks: int) -> None:
        """That did not help: these chunks have the empty answer."""


class _Unobserved:
    def answered(self, seconds: float) -> None:
        pass

    def failed(self, error: UnavailableError) -> None:
        pass

    def repaired(self, chunks: int) -> None:
        pass

    def unreadable(self, chunks: int) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()


class Asker(Generic[Passage, Answer]):
    """Asks a chat model, some passages per question and some questions at once. May be shared by threads.

    An answer that cannot be read is repaired by asking again about each passage of it alone, so that one poisonous
    text spoils no other's. A model of whose answers nothing can be read opens the breaker as a server that is down
    does.

    Args:
        settings: How to ask, and whom, unless ``chat`` is given.
        question: Makes a question about passages.
        schema: Of an answer, in JSON.
        prompt_chars: Of a question without passages.
        empty: The answer for a passage of which the model says nothing that can be read.
        breaker: Its state says whether the model is asked.
        observe: Told of answers and failures.
        chat: Who is asked; closed with this.
    """

    def __init__(
        self,
        settings: Llm,
        question: Callable[[Sequence[Passage]], Question[Answer]],
        *,
        schema: Schema,
        prompt_chars: int,
        empty: Answer,
        breaker: Breaker,
        observe: Observer,
        chat: Chat | None = None,
    ) -> None:
        self._settings = settings
        self._question = question
        self._schema = schema
        self._empty = empty
        self._breaker = breaker
        self._observe = observe
        self._answer_tokens = settings.context_tokens // _ANSWER_SHARE
        self._room = (settings.context_tokens - self._answer_tokens) * _CHARS_PER_TOKEN - prompt_chars
        self._wait_exponential = wait_exponential(multiplier=settings.wait_min, max=settings.wait_max)
        self._chat = chat or ChatModel.of(settings)

    def close(self) -> None:
        """Close the connections."""
        self._chat.close()

    def ask(self, passages: Sequence[Passage]) -> list[Answer]:
        """An answer for each passage, in order.

        Raises:
            PartlyAnsweredError: The model cannot be asked, or fails, about some of the passages or all.
        """
        answers: dict[int, Answer] = {}
        batches = list(self._batches(passages))
        with ThreadPoolExecutor(self._settings.workers) as threads:
            errors = list(filter(None, threads.map(lambda batch: self._answer(batch, passages, answers), batches)))
        if errors:
            wait = max((error.retry_after for error in errors if error.retry_after is not None), default=None)
            given = [answers.get(place) for place in range(len(passages))]
            raise PartlyAnsweredError(str(errors[0]), answers=given, retry_after=wait) from errors[0]
        return [answers[place] for place in range(len(passages))]

    def _batches(self, passages: Sequence[Passage]) -> Iterator[list[int]]:
        batch: list[int] = []
        for place in range(len(passages)):
            is_full = len(batch) == self._settings.batch
            if batch and (is_full or sum(passages[one].chars for one in [*batch, place]) > self._room):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _answer(
        self, batch: Sequence[int], passages: Sequence[Passage], answers: dict[int, Answer]
    ) -> UnavailableError | None:
        """Fill in the answers of a batch; returns why some are not there."""
        try:
            self._breaker.admit()
            self._ask_and_repair(batch, passages, answers)
        except UnavailableError as error:
            return error
        return None

    def _ask_and_repair(self, batch: Sequence[int], passages: Sequence[Passage], answers: dict[int, Answer]) -> None:
        complaint = self._ask(batch, passages, answers)
        unread = [place for place in batch if place not in answers]
        if unread:
            self._observe.repaired(len(unread))
        for place in unread:
            self._ask([place], passages, answers, complaint=complaint)
        unreadable = [place for place in batch if place not in answers]
        if len(unreadable) < len(batch):
            self._breaker.succeeded()
        else:
            self._breaker.failed()
        if unreadable:
            self._observe.unreadable(len(unreadable))
        answers |= dict.fromkeys(unreadable, self._empty)

    def _ask(
        self, batch: Sequence[int], passages: Sequence[Passage], answers: dict[int, Answer], *, complaint: str = ""
    ) -> str:
        """Fill in what the model's answer says of these passages; returns the complaint about those it leaves out."""
        question = self._question([passages[place] for place in batch])
        retrying = Retrying(
            retry=retry_if_exception(self._may_pass),
            stop=stop_after_attempt(self._settings.attempts),
            wait=self._wait,
            reraise=True,
        )
        try:
            found = question.answers(retrying(self._try, question.turns(complaint)))
        except RefusedError:
            return ""
        except ValueError as error:
            return str(error)
        answers |= {place: found[number] for number, place in enumerate(batch, 1) if number in found}
        return "a chunk is missing, or is not in the shape that is asked for"

    def _try(self, turns: Sequence[Turn]) -> str:
        started = time.monotonic()
        try:
            said = self._chat.ask(turns, schema=self._schema, max_tokens=self._answer_tokens)
        except UnavailableError as error:
            self._observe.failed(error)
            if not isinstance(error, RefusedError):
                self._breaker.failed()
            raise
        self._observe.answered(time.monotonic() - started)
        return said

    def _may_pass(self, error: BaseException) -> bool:
        if not isinstance(error, UnavailableError) or isinstance(error, RefusedError):
            return False
        return self._breaker.state != "open" and (error.retry_after or 0) <= self._settings.wait_max

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        asked_for = error.retry_after if isinstance(error, UnavailableError) else None
        return max(self._wait_exponential(state), asked_for or 0)


Chunk = TypeVar("Chunk", bound=BaseModel)


class _Unchecked(BaseModel):
    chunks: list[Any]


def chunks_in(said: str, shape: type[Chunk]) -> list[Chunk]:
    """The chunks of an answer ``{"chunks": [...]}``; those of another shape are left out.

    Raises:
        ValueError: It is no JSON object with chunks.
    """
    try:
        chunks = _Unchecked.model_validate_json(json_object(said)).chunks
    except ValidationError as error:
        raise ValueError(f"no JSON object with chunks ({error.errors()[0]['msg']})") from error
    return [one for one in (_shaped(chunk, shape) for chunk in chunks) if one is not None]


def _shaped(chunk: Any, shape: type[Chunk]) -> Chunk | None:
    try:
        return shape.model_validate(chunk)
    except ValidationError:
        return None
