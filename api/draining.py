"""The end of a process: what is under way ends, what is new is sent elsewhere."""

import asyncio
import socket
import time

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import RETRY_AFTER, Problem, problem_response

_LIVE = "/health/live"
_LOOK = 0.02  # seconds


class Draining:
    """Counts what is under way, and knows whether the process is about to end."""

    def __init__(self) -> None:
        self.begun = False
        self.under_way = 0


class Drained:
    """ASGI middleware: 503 for all but the liveness probe once draining has begun."""

    def __init__(self, app: ASGIApp, *, draining: Draining) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request, or refuse it."""
        if scope["type"] != "http" or scope["path"] == _LIVE:
            await self._app(scope, receive, send)
        elif self._draining.begun:
            problem = Problem(503, "draining", "this process is about to end; try again", retry_after=RETRY_AFTER)
            response = problem_response(scope, problem)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
        else:
            self._draining.under_way += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._draining.under_way -= 1


class DrainingServer(uvicorn.Server):
    """Once it is told to stop, it drains for so many seconds before it closes its door."""

    def __init__(self, config: uvicorn.Config, draining: Draining, *, within: float) -> None:
        super().__init__(config)
        self._draining = draining
        self._within = within

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what comes from now on, and end once nothing is under way."""
        self._draining.begun = True
        deadline = time.monotonic() + self._within
        while self._draining.under_way and not self.force_exit and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)
        await super().shutdown(sockets)
