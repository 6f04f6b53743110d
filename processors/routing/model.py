"""One of several language models, and what asking it has taught."""

import threading
import time
from collections import deque
from collections.abc import Callable

from processors.breaker import Breaker
from processors.llm import ChatModel
from schemas.settings import Llm, LlmModel

_SMOOTHING = 0.3  # what the newest answer counts in the mean
_HALF_LIFE = 600.0  # seconds after which a mean is half of what it was, so that a model that was slow is tried again
_REST = 10.0  # seconds, of a model that has been asked too often and does not say when to come back
_SHORTEST_REST, _LONGEST_REST = 1.0, 3600.0


class Model:
    """May be shared by threads. What it knows is of this process alone."""

    def __init__(self, one: LlmModel, settings: Llm, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = one
        self.name = one.name
        self.breaker = Breaker(clock=clock)
        self.chat = ChatModel(
            one.url,
            model=one.model or one.name,
            protocol=one.protocol,
            api_key=one.api_key,
            timeout=settings.timeout,
            context_tokens=settings.context_tokens,
            counted=bool(one.input_price or one.output_price),
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._resting_until = 0.0
        self._asked: deque[float] = deque(maxlen=one.requests_per_minute)
        self._mean, self._heard_at = 0.0, 0.0

    def free_in(self) -> float:
        """Seconds until it may be asked as far as its rate goes."""
        with self._lock:
            now = self._clock()
            is_full = self._asked and len(self._asked) == self._asked.maxlen
            return max(0.0, self._resting_until - now, self._asked[0] + 60 - now if is_full else 0.0)

    def is_free(self) -> bool:
        """Whether it would be asked, if there is money for it."""
        return self.free_in() == 0 and self.breaker.state != "open"

    def asked(self) -> None:
        """Note one request."""
        with self._lock:
            self._asked.append(self._clock())

    def rest(self, seconds: float | None) -> None:
        """Do not ask it for so long, or, where it does not say how long, for a while."""
        with self._lock:
            wanted = _REST if seconds is None else seconds
            self._resting_until = self._clock() + min(max(wanted, _SHORTEST_REST), _LONGEST_REST)

    def heard(self, seconds: float) -> None:
        """Note how long the first word of an answer took."""
        with self._lock:
            known = self._faded()
            self._mean = known + _SMOOTHING * (seconds - known) if known else seconds
            self._heard_at = self._clock()

    def seconds(self) -> float:
        """What the first word may take: the faded mean; 0 before the first answer, so that everyone is tried."""
        with self._lock:
            return self._faded()

    def _faded(self) -> float:
        return float(self._mean * 0.5 ** ((self._clock() - self._heard_at) / _HALF_LIFE))
