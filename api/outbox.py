"""Publishing with the broker's acknowledgement."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial

import structlog
from anyio import to_thread

from api import pools
from api.ports import Published, Publisher
from processors.errors import UnavailableError

_MAX_WAITING = 1000
_FLUSH_TIMEOUT = 10.0
_RETRY_AFTER = 5.0

log = structlog.get_logger()


class Outbox:
    """Publishes in groups: whatever came while the last group was under way goes together, with one flush.

    A flush tells only whether *everything* was acknowledged, and tells it to one caller. So nothing is published
    during a flush, and where it fails, the whole group is told so. A record that was told to have failed may reach
    the topic later: publishing it again is safe.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._thread = pools.threads("publish", 1)
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[Callable[[], Published], asyncio.Future[Published]]] = []

    async def send(self, publish: Callable[[], Published]) -> Published:
        """Run ``publish`` in a thread and wait until the broker has what it sent.

        Raises:
            UnavailableError: The broker has not acknowledged it.
            Exception: What ``publish`` raised.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise UnavailableError(f"{_MAX_WAITING} documents wait to be published", retry_after=_RETRY_AFTER)
        outcome: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._waiting.append((partial(copy_context().run, publish), outcome))
        async with self._turn:
            if not outcome.done():
                await self._send_waiting()
        return outcome.result()

    async def _send_waiting(self) -> None:
        group, self._waiting = self._waiting, []
        results = await to_thread.run_sync(self._commit, [publish for publish, _ in group], limiter=self._thread)
        for (_, outcome), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                outcome.set_exception(result)
            else:
                outcome.set_result(result)

    def _commit(self, group: Sequence[Callable[[], Published]]) -> list[Published | Exception]:
        results = [_outcome(publish) for publish in group]
        try:
            self._publisher.flush(timeout=_FLUSH_TIMEOUT)
        except UnavailableError as error:
            log.warning("not-acknowledged", records=len(group), error=str(error))
            return [result if isinstance(result, Exception) else _refusal(error) for result in results]
        return results


def _outcome(publish: Callable[[], Published]) -> Published | Exception:
    try:
        return publish()
    except Exception as error:
        return error


def _refusal(error: UnavailableError) -> UnavailableError:
    return UnavailableError("the broker has not acknowledged", retry_after=error.retry_after or _RETRY_AFTER)
