"""A chat with whichever of several language models fits best and can be asked (ADR 26)."""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from processors.errors import UnavailableError
from processors.llm import RateLimitedError, RefusedError, Schema, Turn
from processors.llm_stream import Reply, Step, Usage
from processors.routing.budgets import Booking, BudgetError, Budgets, cost
from processors.routing.ledger import UNIT, Ledger
from processors.routing.model import Model
from processors.routing.observer import UNOBSERVED, Observer
from processors.routing.strategy import Traits, ranked
from schemas.settings import Llm, LlmTask

_BYTES_PER_TOKEN = 3  # few texts have more tokens
_TOKENS_PER_TURN = 8
_ANSWER_SHARE = 4  # where the caller sets no bound, an answer that costs money has a quarter of the context


class BusyError(UnavailableError):
    """A breaker keeps the model from being asked."""


_OUTCOMES: Mapping[type[UnavailableError], str] = {
    BudgetError: "budget",
    RateLimitedError: "rate-limited",
    RefusedError: "refused",
    BusyError: "breaker",
}


class Router:
    """Asks the first choice that can be asked, and the next where that fails before its first word.

    A model is passed over while its budget is used up, while it rests after a 429 (or has had its requests per minute),
    and while its breaker is open. Where rates alone are in the way, a caller waits for up to half of its time. As long
    as there is another to ask, a model has half of the time that is left for its first word. A lone model neither rests
    nor has a breaker: those who ask have their own. May be shared by threads.

    Args:
        settings: The models, and how to choose.
        task: What for; only models that are set for it are asked.
        ledger: Where spending is noted.
        observe: Told of everything.
        clock: Seconds.

    Raises:
        ValueError: No model is set for this task.
    """

    def __init__(
        self,
        settings: Llm,
        *,
        task: LlmTask,
        ledger: Ledger,
        observe: Observer = UNOBSERVED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = settings.label
        self.settings = settings
        self.models = [Model(one, settings, clock=clock) for one in settings.models_for(task)]
        if not self.models:
            raise ValueError(f"no model of AEGIS_LLM__MODELS is for {task}")
        self.budgets = Budgets(settings, ledger, alert=observe.alert)
        self.observe = observe
        observe.watch(self.budgets.limits, self.budgets.share)

    def close(self) -> None:
        """Close the connections."""
        for model in self.models:
            model.chat.close()

    def ask(self, turns: Sequence[Turn], *, schema: Schema | None = None, max_tokens: int | None = None) -> str:
        """What a model says. Raises as ``stream``."""
        return "".join(self.stream(turns, schema=schema, max_tokens=max_tokens))

    def stream(
        self,
        turns: Sequence[Turn],
        *,
        schema: Schema | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
    ) -> "RoutedReply":
        """What a model says, piece by piece; ``timeout`` (seconds) is for all of it.

        Reading it raises (where several fail, of what they have in common):
            BudgetError: Nobody may be paid.
            RateLimitedError: All rest.
            RefusedError: Nobody takes the question.
            UnavailableError: Nobody answers, or somebody broke off.
        """
        seconds = self.settings.timeout if timeout is None else timeout
        return RoutedReply(self, _Question(turns, schema, max_tokens, _prompt_tokens(turns)), seconds)

    def ranked(self, most: Usage) -> list[Model]:
        """The models, the first choice first, for a question of so many tokens."""
        traits = [
            (model, Traits(cost(model.settings, most) / UNIT, model.settings.quality, model.seconds()))
            for model in self.models
        ]
        return ranked(traits, self.settings)


@dataclass(frozen=True)
class _Question:
    turns: Sequence[Turn]
    schema: Schema | None
    max_tokens: int | None
    prompt_tokens: int


class RoutedReply(Iterator[str]):
    """As ``processors.llm_stream.Reply``. ``route`` says in order who was thought of and what became of it."""

    def __init__(self, router: Router, question: _Question, seconds: float) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self.cut = False
        self.route: list[Step] = []
        self._router = router
        self._question = question
        self._max_tokens = question.max_tokens or router.settings.context_tokens // _ANSWER_SHARE
        self._deadline = time.monotonic() + seconds
        self._closing = threading.Lock()
        self._closed = threading.Event()
        self._reply: Reply | None = None
        self._pieces = self._run()

    def __next__(self) -> str:
        """The next piece. Raises as ``Router.stream`` says."""
        return next(self._pieces)

    def close(self) -> None:
        """Stop it, from any thread; what was said is paid for."""
        with self._closing:
            self._closed.set()
            reply = self._reply
        if reply is not None:
            reply.close()
        with suppress(ValueError):  # another thread is in it, and notices
            self._pieces.close()

    def _run(self) -> Generator[str, None, None]:
        failed: dict[str, UnavailableError] = {}
        while True:
            problems: dict[str, UnavailableError] = dict(failed)
            waiting = [model for model in self._router.ranked(self._most()) if model.name not in failed]
            for place, model in enumerate(waiting, 1):
                try:
                    yield from self._asked(model, is_last=not any(other.is_free() for other in waiting[place:]))
                    return
                except UnavailableError as error:
                    if not self._closed.is_set():
                        self._note(model, error)
                    if self.model is not None or self._closed.is_set():
                        raise
                    problems[model.name] = error
                    if not model.free_in():
                        failed[model.name] = error
            rests = [model.free_in() for model in waiting if model.name not in failed]
            if not rests or min(rests) > self._left() / 2:
                raise _together(problems)
            self._closed.wait(min(rests))

    def _asked(self, model: Model, *, is_last: bool) -> Generator[str, None, None]:
        if wait := model.free_in():
            raise RateLimitedError(f"{model.name} rests", retry_after=wait)
        try:
            model.breaker.admit()
        except UnavailableError as error:
            raise BusyError(f"{model.name}: {error}", retry_after=error.retry_after) from error
        booking = self._router.budgets.reserve(model.settings, self._most())
        model.asked()
        said = 0
        try:
            reply, began = self._open(model, booking, is_last=is_last), time.monotonic()
            for piece in reply:
                if self.model is None:
                    self._begun(model, time.monotonic() - began)
                said += len(piece.encode())
                yield piece
            if self.model is None:  # it has nothing to say
                self._begun(model, time.monotonic() - began)
            self.cut = reply.cut
            model.breaker.succeeded()
        except UnavailableError as error:
            self._learn(model, error)
            raise
        finally:
            self._end(booking, said)

    def _open(self, model: Model, booking: Booking, *, is_last: bool) -> Reply:
        left = self._left()
        with self._closing:
            if self._closed.is_set() or left <= 0:
                raise UnavailableError("there is no time left to ask a language model")
            self._reply = model.chat.stream(
                self._question.turns,
                schema=self._question.schema,
                max_tokens=self._max_tokens if booking.amount else self._question.max_tokens,
                timeout=left,
                first=None if is_last else left / 2,
            )
        return self._reply

    def _begun(self, model: Model, seconds: float) -> None:
        self.model = model.name
        self.route.append(Step(model.name, "answered"))
        model.heard(seconds)
        self._router.observe.first(model.name, seconds)
        self._router.observe.tried(model.name, "answered")

    def _learn(self, model: Model, error: UnavailableError) -> None:
        if len(self._router.models) == 1:
            return
        if isinstance(error, RateLimitedError):
            model.rest(error.retry_after)
        elif self._reply is not None and not isinstance(error, RefusedError) and not self._closed.is_set():
            model.breaker.failed()

    def _end(self, booking: Booking, said: int) -> None:
        """Note what the call took: what the server counted, or else about what was sent and said."""
        reply, self._reply = self._reply, None
        usage = Usage(0, 0)
        if reply is not None:
            reply.close()
            if reply.sent:
                usage = reply.usage or Usage(self._question.prompt_tokens, math.ceil(said / _BYTES_PER_TOKEN))
        self.usage = usage
        name = booking.model.name
        self._router.observe.used(name, usage, self._router.budgets.settle(booking, usage))

    def _note(self, model: Model, error: UnavailableError) -> None:
        outcome = next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "failed")
        self.route.append(Step(model.name, outcome))
        self._router.observe.tried(model.name, outcome, error)

    def _most(self) -> Usage:
        return Usage(self._question.prompt_tokens, self._max_tokens)

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _prompt_tokens(turns: Sequence[Turn]) -> int:
    return sum(math.ceil(len(turn["content"].encode()) / _BYTES_PER_TOKEN) + _TOKENS_PER_TURN for turn in turns)


def _together(problems: Mapping[str, UnavailableError]) -> UnavailableError:
    """What all of them have in common, and the first that can be asked again."""
    errors = list(problems.values())
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else UnavailableError
    waits = [error.retry_after for error in errors if error.retry_after is not None]
    return kind("; ".join(map(str, errors)), retry_after=min(waits, default=None))
