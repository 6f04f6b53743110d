"""Measurements that block and cost, shared by all requests that want them."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from anyio import to_thread

T_co = TypeVar("T_co", covariant=True)

log = structlog.get_logger()


class Measured(Generic[T_co]):
    """The result of ``measure``, at most ``max_age`` seconds old. However many ask, it runs once at a time."""

    def __init__(self, measure: Callable[[], T_co], *, max_age: float) -> None:
        self._measure = measure
        self._max_age = max_age
        self._began_at = self._measured_at = float("-inf")
        self._outcome: tuple[T_co] | Exception | None = None
        self._running: asyncio.Task[None] | None = None

    async def get(self, *, within: float) -> T_co:
        """The newest result, given ``within`` seconds from when its measurement began: one that hangs delays few.

        Raises:
            TimeoutError: There is none yet; the measurement goes on for whoever asks next.
            Exception: What ``measure`` raised.
        """
        self._refresh()
        if self._running is not None:
            left = self._began_at + within - time.monotonic()
            done, _ = await asyncio.wait([self._running], timeout=max(0.0, left))
            if not done:
                raise TimeoutError(f"no answer in {within:g} s")
        if isinstance(self._outcome, tuple):
            return self._outcome[0]
        raise self._outcome or TimeoutError("not measured")

    def last(self) -> T_co | None:
        """The newest result that is there already; a newer one is fetched behind the caller's back."""
        self._refresh()
        return self._outcome[0] if isinstance(self._outcome, tuple) else None

    def _refresh(self) -> None:
        if self._running is None and time.monotonic() - self._measured_at > self._max_age:
            self._began_at = time.monotonic()
            self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            self._outcome = (await to_thread.run_sync(self._measure, abandon_on_cancel=True),)
        except Exception as error:
            log.warning("measurement-failed", error=repr(error))
            self._outcome = error
        finally:
            self._measured_at = time.monotonic()
            self._running = None
