"""Who is told what a router does."""

from collections.abc import Callable, Sequence
from typing import Protocol

from processors.errors import UnavailableError
from processors.llm_stream import Usage
from processors.routing.budgets import Alert, Limit


class Observer(Protocol):
    """Is told what a router does, in the thread that does it."""

    def watch(self, limits: Sequence[Limit], share: Callable[[Limit], float]) -> None:
        """There are these limits; ``share`` says at any time how much of one is spent."""

    def tried(self, model: str, outcome: str, problem: UnavailableError | None = None) -> None:
        """What became of the thought to ask a model."""

    def first(self, model: str, seconds: float) -> None:
        """The first piece of its answer is there."""

    def used(self, model: str, usage: Usage, money: float) -> None:
        """A call is over."""

    def alert(self, alert: Alert) -> None:
        """A limit is near."""


class _Unobserved:
    def watch(self, limits: Sequence[Limit], share: Callable[[Limit], float]) -> None:
        pass

    def tried(self, model: str, outcome: str, problem: UnavailableError | None = None) -> None:
        pass

    def first(self, model: str, seconds: float) -> None:
        pass

    def used(self, model: str, usage: Usage, money: float) -> None:
        pass

    def alert(self, alert: Alert) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()
