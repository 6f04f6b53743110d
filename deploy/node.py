"""The node: what answers from an index and what writes to it, and how another index takes its place."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaException
from starlette.types import ASGIApp

from api.switch import Switch
from deploy.catching_up import CatchingUp
from deploy.generations import OFFERED, Generation, in_effect, make_live, read, turn_down
from schemas.settings import Settings
from streams.app import Worker
from streams.status import StatusView

log = structlog.get_logger()

_LOOK_EVERY = 0.25
_CATCH_UP = 60.0


@dataclass(frozen=True)
class Index:
    """One generation, opened.

    ``warm`` returns when it answers as well as one that has for long; ``close`` comes after the last answer and write.
    """

    settings: Settings
    app: ASGIApp
    worker: Worker
    view: StatusView
    warm: Callable[[], None]
    close: Callable[[], None]


class _Working:
    """An index whose stages run."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._leaving = asyncio.Event()
        self.task = asyncio.create_task(index.worker.run(self._leaving))

    async def end(self) -> None:
        """On return its stages have ended."""
        self._leaving.set()
        await self.task


class Node:
    """Owns an index; when another generation is offered, opens that and answers from it instead."""

    def __init__(
        self, settings: Settings, open_index: Callable[[Settings], Index], *, retire: Callable[[Settings], None]
    ) -> None:
        """``retire`` deletes what was before the live generation, whose settings it is given."""
        self._settings = settings
        self._open = open_index
        self._retire = retire
        self._index = open_index(in_effect(settings))
        self.app = Switch(self._index.app)

    async def run(self, stopping: asyncio.Event) -> None:
        """Index until ``stopping``, whichever generation is the live one."""
        working = _Working(self._index)
        retiring = self._retired()
        while (following := await self._following(working, stopping)) is not None:
            before = self.app.turn_to(following.index.app)
            make_live(self._settings.data_dir)
            log.info("index-switched", generation=following.index.settings.generation)
            self._index = following.index
            await asyncio.to_thread(before.end)
            await working.end()
            await asyncio.to_thread(working.index.close)
            await asyncio.to_thread(retiring.join)
            retiring = self._retired()
            working = following
        await working.end()

    def close(self) -> None:
        """Release the index; after ``run``, and after the server's last answer."""
        self._index.close()

    def _retired(self) -> threading.Thread:
        """A thread that deletes what was before the live index; nothing waits for it when the node stops."""
        thread = threading.Thread(target=self._retire, args=[self._index.settings], name="retire", daemon=True)
        thread.start()
        return thread

    async def _following(self, working: _Working, stopping: asyncio.Event) -> _Working | None:
        """The next generation at work, as far as this one and ready to answer; None when the node is to stop."""
        looking = asyncio.create_task(self._looked_for(working.index, stopping))
        await asyncio.wait({working.task, looking}, return_when=asyncio.FIRST_COMPLETED)
        if not looking.done():
            looking.cancel()
            await working.task  # raises why it ended
        return await looking

    async def _looked_for(self, current: Index, stopping: asyncio.Event) -> _Working | None:
        while not stopping.is_set():
            offered = read(self._settings.data_dir, OFFERED)
            if offered is not None and (index := await asyncio.to_thread(self._opened, offered)) is not None:
                working = _Working(index)
                await asyncio.to_thread(_catch_up, current, index, stopping)
                return working
            await asyncio.sleep(_LOOK_EVERY)
        return None

    def _opened(self, offered: Generation) -> Index | None:
        try:
            index = self._open(offered.applied_to(self._settings))
            index.warm()
        except Exception as error:  # whatever it is, the index that answers goes on
            log.critical("index-not-opened", generation=offered.name, error=repr(error), exc_info=error)
            turn_down(self._settings.data_dir)
            return None
        return index


def _catch_up(old: Index, new: Index, stopping: asyncio.Event) -> None:
    """Wait until its stages run and nothing is missing; who offered the index has seen to all but the last seconds."""
    catching_up = CatchingUp(old.view, new.view, without_failed=True)
    deadline = time.monotonic() + _CATCH_UP
    while time.monotonic() < deadline and not stopping.is_set():
        with suppress(KafkaException, TimeoutError):  # the broker is away for a moment
            if all(health.is_ready for health in new.worker.healths.values()) and catching_up.is_done():
                return
        time.sleep(_LOOK_EVERY)
    log.warning("index-is-behind", documents=len(catching_up.left))
