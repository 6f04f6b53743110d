"""Relations read by a language model, which is asked about several chunks at once and never taken at its word."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from processors.errors import UnavailableError
from processors.llm import Breaker, ChatModel, RefusedError, Turn
from processors.relations.degrading import PartlyAnsweredError
from processors.relations.llm_question import (
    MAX_RELATIONS,
    PROMPT_CHARS,
    SCHEMA,
    VERSION,
    Claim,
    Entity,
    Misfit,
    Passage,
    Question,
    evidence_in,
    misfit,
    passage_of,
)
from schemas.records import Mention, Relation
from schemas.settings import Llm

_CHARS_PER_TOKEN = 3
_ANSWER_SHARE = 4  # of the tokens of question and answer, the answer may take one in four
_CONFIDENCE = 0.8  # a model's own number says little (Xiong et al. 2024), and costs tokens

Answers = list[tuple[Relation, ...] | None]


class Observer(Protocol):
    """Is told what a relation extractor does, in the thread that does it."""

    def answered(self, seconds: float) -> None:
        """The model answered one question, whether of use or not."""

    def failed(self, error: UnavailableError) -> None:
        """One try gave no answer."""

    def dropped(self, why: Misfit) -> None:
        """A relation that the model claims is not taken."""

    def repaired(self, chunks: int) -> None:
        """The answer says nothing of use about these chunks; each is asked about again, alone."""

    def unreadable(self, chunks: int) -> None:
        """That did not help: these chunks get no relations."""


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
    """Asks a chat model, some chunks per question and some questions at once. May be shared by threads.

    An answer that cannot be read is repaired by asking again about each chunk of it alone, so that one poisonous text
    spoils no other's. A model of whose answers nothing can be read opens the breaker as a server that is down does.

    Args:
        settings: The model, and how to ask.
        breaker: Its state says whether the model is asked.
        observe: Told of answers, failures, and of what is not taken.
    """

    def __init__(self, settings: Llm, *, breaker: Breaker | None = None, observe: Observer = UNOBSERVED) -> None:
        self.name = f"llm-{VERSION}/{settings.model}"
        self.breaker = breaker or Breaker()
        self._settings = settings
        self._observe = observe
        self._answer_tokens = settings.context_tokens // _ANSWER_SHARE
        self._wait_exponential = wait_exponential(multiplier=settings.wait_min, max=settings.wait_max)
        self._chat = ChatModel.of(settings)

    def close(self) -> None:
        """Close the connections."""
        self._chat.close()

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[tuple[Relation, ...]]:
        """As ``RelationExtractor.relations``; of a text, the first 4,000 characters are read.

        Raises:
            PartlyAnsweredError: The model cannot be asked, or fails, about some of the texts or all.
        """
        passages = [passage_of(position, *pair) for position, pair in enumerate(zip(texts, mentions, strict=True))]
        answers: Answers = [() if len(passage.entities) < 2 else None for passage in passages]
        batches = list(self._batches([passage for passage in passages if answers[passage.position] is None]))
        with ThreadPoolExecutor(self._settings.workers) as threads:
            errors = list(filter(None, threads.map(lambda batch: self._answer(batch, answers), batches)))
        if errors:
            wait = max((error.retry_after for error in errors if error.retry_after is not None), default=None)
            raise PartlyAnsweredError(str(errors[0]), answers=answers, retry_after=wait) from errors[0]
        return [answer or () for answer in answers]

    def _batches(self, passages: Sequence[Passage]) -> Iterator[list[Passage]]:
        question_tokens = self._settings.context_tokens - self._answer_tokens
        room = question_tokens * _CHARS_PER_TOKEN - PROMPT_CHARS
        batch: list[Passage] = []
        for passage in passages:
            is_full = len(batch) == self._settings.batch or sum(one.chars for one in [*batch, passage]) > room
            if batch and is_full:
                yield batch
                batch = []
            batch.append(passage)
        if batch:
            yield batch

    def _answer(self, batch: Sequence[Passage], answers: Answers) -> UnavailableError | None:
        """Fill in the answers of a batch; returns why some are not there."""
        try:
            self.breaker.admit()
            self._ask_and_repair(batch, answers)
        except UnavailableError as error:
            return error
        return None

    def _ask_and_repair(self, batch: Sequence[Passage], answers: Answers) -> None:
        complaint = self._ask(batch, answers)
        unread = [passage for passage in batch if answers[passage.position] is None]
        if unread:
            self._observe.repaired(len(unread))
        for passage in unread:
            self._ask([passage], answers, complaint=complaint)
        unreadable = [passage for passage in batch if answers[passage.position] is None]
        if len(unreadable) < len(batch):
            self.breaker.succeeded()
        else:
            self.breaker.failed()
        if unreadable:
            self._observe.unreadable(len(unreadable))
        for passage in unreadable:
            answers[passage.position] = ()

    def _ask(self, passages: Sequence[Passage], answers: Answers, *, complaint: str = "") -> str:
        """Fill in what the model's answer says of these passages; returns the complaint about those it leaves out."""
        question = Question(passages)
        retrying = Retrying(
            retry=retry_if_exception(self._may_pass),
            stop=stop_after_attempt(self._settings.attempts),
            wait=self._wait,
            reraise=True,
        )
        try:
            claims = question.claims(retrying(self._try, question.turns(complaint)))
        except RefusedError:
            return ""
        except ValueError as error:
            return str(error)
        for number, claimed in claims.items():
            passage = question.passages[number]
            answers[passage.position] = tuple(self._taken(claimed, question.entities[number], passage.text))
        return "a chunk is missing, or is not in the shape that is asked for"

    def _try(self, turns: Sequence[Turn]) -> str:
        started = time.monotonic()
        try:
            said = self._chat.ask(turns, schema=SCHEMA, max_tokens=self._answer_tokens)
        except UnavailableError as error:
            self._observe.failed(error)
            if not isinstance(error, RefusedError):
                self.breaker.failed()
            raise
        self._observe.answered(time.monotonic() - started)
        return said

    def _may_pass(self, error: BaseException) -> bool:
        if not isinstance(error, UnavailableError) or isinstance(error, RefusedError):
            return False
        return self.breaker.state != "open" and (error.retry_after or 0) <= self._settings.wait_max

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        asked_for = error.retry_after if isinstance(error, UnavailableError) else None
        return max(self._wait_exponential(state), asked_for or 0)

    def _taken(self, claims: Sequence[Claim], entities: Mapping[int, Entity], text: str) -> Iterator[Relation]:
        taken: set[tuple[int, str, int]] = set()
        for claim in claims:
            evidence = evidence_in(text, claim.evidence)
            why = "excess" if len(taken) == MAX_RELATIONS else misfit(claim, entities, evidence)
            key = claim.source, claim.type, claim.target
            if why:
                self._observe.dropped(why)
            elif key not in taken:
                taken.add(key)
                ends = entities[claim.source].id, entities[claim.target].id
                yield Relation(
                    source=ends[0], target=ends[1], type=claim.type, evidence=evidence, confidence=_CONFIDENCE
                )
