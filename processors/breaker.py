"""A circuit breaker, the only one here: for language models and for the stores behind the API (ADR 23)."""

import threading
import time
from collections.abc import Callable
from typing import Literal

from processors.errors import UnavailableError

BreakerState = Literal["closed", "open", "half-open"]


class Breaker:
    """Spares a server that keeps failing (Nygard, Release It!). May be shared by threads.

    Closed, it admits everybody. ``failures`` in a row open it for ``recovery`` seconds; then, half open, it admits one,
    who closes it or opens it again. One who never comes back holds it for ``recovery`` seconds at most.
    """

    def __init__(
        self, *, failures: int = 5, recovery: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state: BreakerState = "closed"
        self._limit = failures
        self._recovery = recovery
        self._clock = clock
        self._failures = 0
        self._opened_at = 0.0
        self._lock = threading.Lock()

    def admit(self) -> None:
        """Return if one may go and ask.

        Raises:
            UnavailableError: It is open, for ``retry_after`` seconds.
        """
        with self._lock:
            if self.state == "closed":
                return
            wait = self._opened_at + self._recovery - self._clock()
            if wait > 0:
                raise UnavailableError(f"after {self._failures} failures it is not asked", retry_after=wait)
            self.state = "half-open"
            self._opened_at = self._clock()

    def succeeded(self) -> None:
        """Note that it works."""
        with self._lock:
            self.state = "closed"
            self._failures = 0

    def failed(self) -> None:
        """Note that it does not."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:  # as they are until it works again
                self.state = "open"
                self._opened_at = self._clock()
