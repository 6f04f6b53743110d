"""Who is let in: back-pressure is an answer with ``Retry-After``, given before any work is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from api import pools
from api.measured import Measured
from api.problems import Problem

_MAX_RETRY_AFTER = 3600.0


class Slots:
    """At most ``limit`` of one kind of request at a time."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self._what = what
        self.taken = 0
        pools.register(what, self)

    def check(self) -> None:
        """Raise a 429 problem if all are taken."""
        if self.taken >= self.limit:
            raise Problem(429, "overloaded", f"{self.limit} {self._what} are open; try again", retry_after=1)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one; a 429 problem if all are taken."""
        self.check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def admit_document(seconds_behind: Measured[float | None], *, max_lag: float) -> None:
    """Raise a 429 problem while the queue is too long.

    Where the lag cannot be measured now, the document is let in: the broker's own answer decides.
    """
    try:
        seconds = await seconds_behind.get(within=1.0)
    except Exception:
        return
    if seconds is not None and seconds > max_lag:
        raise Problem(
            429,
            "queue-too-long",
            f"documents wait {seconds:.0f} s to be read, more than the {max_lag:g} s allowed; publish again later",
            retry_after=min(seconds - max_lag, _MAX_RETRY_AFTER),
            lag_seconds=seconds,
        )
