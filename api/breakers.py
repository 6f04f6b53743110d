"""A circuit breaker round each store and model that the API asks: what keeps failing is left alone (ADR 23)."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from api.metrics import BREAKER_STATE
from api.ports import Ports
from processors.breaker import Breaker, BreakerState
from processors.errors import DeadlineError, OverloadedError, PermanentError
from schemas.settings import Api

T = TypeVar("T")

_LEVELS: Mapping[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}
_NOT_ITS_FAULT = (PermanentError, OverloadedError, DeadlineError)


class Breakers:
    """By name. ``AEGIS_API__BREAKER_FAILURES`` in a row open one; a call as slow as a search may be is one."""

    def __init__(self, settings: Api) -> None:
        self._settings = settings
        self._breakers: dict[str, Breaker] = {}

    def named(self, name: str) -> Breaker:
        """The one of that name."""
        if name not in self._breakers:
            settings = self._settings
            breaker = Breaker(failures=settings.breaker_failures, recovery=settings.breaker_recovery)
            BREAKER_STATE.labels(name).set_function(lambda: _LEVELS[breaker.state])
            self._breakers[name] = breaker
        return self._breakers[name]

    def states(self) -> dict[str, BreakerState]:
        """The state of each."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    def around(self, ports: Ports) -> Ports:
        """The same ports, each behind its breaker; the language model's reader notes for itself how that went."""
        slow = self._settings.search_timeout
        embedding = self.named("embedding")
        return replace(
            ports,
            retriever=_behind(self.named("vectors"), ports.retriever, slow=slow),
            graph=_behind(self.named("graph"), ports.graph, slow=slow),
            reranker=ports.reranker and _behind(self.named("reranker"), ports.reranker, slow=slow),
            # Slow is only that its turn comes late, or that it is being loaded.
            embeddings=_behind(embedding, ports.embeddings, slow=float("inf")),
            embed_query=partial(_call, embedding, float("inf"), ports.embed_query),
        )


class _Behind:
    """Has what the port has; its methods are called through the breaker."""

    def __init__(self, breaker: Breaker, port: object, slow: float) -> None:
        self._breaker = breaker
        self._port = port
        self._slow = slow

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return partial(_call, self._breaker, self._slow, found) if callable(found) else found


def _behind(breaker: Breaker, port: T, *, slow: float) -> T:
    return cast(T, _Behind(breaker, port, slow))


def _call(breaker: Breaker, slow: float, method: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """What the method returns, and the breaker told how it went.

    Raises:
        UnavailableError: The breaker is open.
    """
    breaker.admit()
    started = time.monotonic()
    try:
        result = method(*args, **options)
    except Exception as error:
        _note(breaker, error)
        raise
    if isinstance(result, Future):
        result.add_done_callback(partial(_note_future, breaker))
    elif isinstance(result, Iterator):
        return _read(breaker, result)
    elif time.monotonic() - started < slow:
        breaker.succeeded()
    else:
        breaker.failed()
    return result


def _read(breaker: Breaker, rows: Iterator[T]) -> Iterator[T]:
    try:
        yield from rows
    except Exception as error:
        _note(breaker, error)
        raise
    breaker.succeeded()


def _note(breaker: Breaker, error: BaseException | None) -> None:
    if error is None or isinstance(error, _NOT_ITS_FAULT):
        breaker.succeeded()
    else:
        breaker.failed()


def _note_future(breaker: Breaker, done: "Future[Any]") -> None:
    if not done.cancelled():
        _note(breaker, done.exception())
