"""Time for an answer, split over its steps."""

import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from api.deadlines import within
from api.metrics import ANSWER_SECONDS
from api.tracing import record_phase

Step = Literal["rewrite", "search", "evidence", "generate"]
# By when, as a share of the whole, a step has to be done; the rest is for what comes after it.
_SHARES: dict[Step, float] = {"rewrite": 0.2, "search": 0.5, "evidence": 0.65, "generate": 0.95}
T = TypeVar("T")


class Budget:
    """The seconds that an answer may take, from now on, and those that its steps took."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.took: dict[Step, float] = {}
        self._started = time.monotonic()

    def deadline(self, step: Step) -> float:
        """When the step has to be done, on ``time.monotonic``."""
        return self._started + self.seconds * _SHARES[step]

    def left(self, step: Step) -> float:
        """Seconds until then."""
        return max(0.0, self.deadline(step) - time.monotonic())

    def total(self) -> float:
        """Seconds since the question came."""
        return time.monotonic() - self._started

    @contextmanager
    def timed(self, step: Step) -> Iterator[None]:
        """Note what a step takes."""
        started, began_ns = time.monotonic(), time.time_ns()
        try:
            yield
        finally:
            self.took[step] = time.monotonic() - started
            ANSWER_SECONDS.labels(step).observe(self.took[step])
            record_phase(f"answer {step}", began_ns)

    async def run(self, step: Step, work: Coroutine[Any, Any, T]) -> T:
        """The work's result, as ``within``.

        Raises:
            TimeoutError: It is not there by the step's deadline.
        """
        with self.timed(step):
            return await within(self.left(step), work)
