"""How many requests a tier may make: fixed windows of a minute and a day, each from its first request on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import redis
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter

from api.access.principals import Principal
from api.problems import Problem
from processors.errors import UnavailableError
from schemas.settings import Access, Tier

Headers = Mapping[str, str]

_TIMEOUT = 5.0
_NAMES = {RateLimitItemPerMinute: "minute", RateLimitItemPerDay: "day"}


class _Window(NamedTuple):
    name: str
    quota: int
    seconds: int
    remaining: int
    resets_at: float

    @property
    def resets_in(self) -> int:
        return max(1, round(self.resets_at - time.time()))


class Limits:
    """Counts requests, in memory or in a Redis that several processes share.

    Raises (all methods):
        UnavailableError: Redis does not answer.
    """

    def __init__(self, settings: Access) -> None:
        self._items = {name: _items(getattr(settings, name)) for name in ("free", "pro", "enterprise")}
        self._attempts = RateLimitItemPerMinute(settings.login_attempts)
        url = settings.redis_url
        storage = (
            MemoryStorage()
            if url is None
            else RedisStorage(
                url.get_secret_value(),
                key_prefix="aegis:limits",
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
            )
        )
        self._limiter = FixedWindowRateLimiter(storage)

    def take(self, principal: Principal) -> Headers:
        """Count a request; the headers that say what is left.

        Raises:
            Problem: 429, there is nothing left.
        """
        items = self._items[principal.tier] if principal.tier else ()
        if not items:
            return {}
        with _translated():
            is_allowed = all(self._limiter.hit(item, principal.name) for item in items)
            windows = [self._window(item, principal.name) for item in items]
        headers = _headers(windows)
        if not is_allowed:
            spent = max((one for one in windows if not one.remaining), key=lambda one: one.resets_at)
            raise _refusal(f"{spent.quota} requests a {spent.name} are the limit here", spent, headers)
        return headers

    def take_login(self, name: str, address: str) -> None:
        """Count an attempt to log in.

        Raises:
            Problem: 429, too many for this name, or from this address.
        """
        for who in (f"name:{name}", f"address:{address}"):
            with _translated():
                is_allowed = self._limiter.hit(self._attempts, "login", who)
                window = self._window(self._attempts, "login", who)
            if not is_allowed:
                raise _refusal("too many attempts to log in", window, {})

    def _window(self, item: RateLimitItem, *identifiers: str) -> _Window:
        resets_at, remaining = self._limiter.get_window_stats(item, *identifiers)
        return _Window(_NAMES[type(item)], item.amount, item.get_expiry(), remaining, resets_at)


def _items(tier: Tier) -> tuple[RateLimitItem, ...]:
    minute = (RateLimitItemPerMinute(tier.per_minute),) if tier.per_minute else ()
    return (*minute, *((RateLimitItemPerDay(tier.per_day),) if tier.per_day else ()))


def _headers(windows: list[_Window]) -> Headers:
    """``X-RateLimit-*`` of the window that has least left, and all by draft-ietf-httpapi-ratelimit-headers-10."""
    scarcest = min(windows, key=lambda one: one.remaining)
    return {
        "X-RateLimit-Limit": str(scarcest.quota),
        "X-RateLimit-Remaining": str(scarcest.remaining),
        "X-RateLimit-Reset": str(scarcest.resets_in),
        "RateLimit-Policy": ", ".join(f'"{one.name}";q={one.quota};w={one.seconds}' for one in windows),
        "RateLimit": ", ".join(f'"{one.name}";r={one.remaining};t={one.resets_in}' for one in windows),
    }


def _refusal(detail: str, window: _Window, headers: Headers) -> Problem:
    detail = f"{detail}; try again in {window.resets_in} s"
    return Problem(429, "too-many-requests", detail, retry_after=window.resets_in, headers=headers)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise UnavailableError(f"Redis fails: {type(error).__name__}") from error
