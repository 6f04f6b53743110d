"""How an application takes the place of another while requests are answered (docs/adr/0021)."""

import asyncio
import threading
import time

from starlette.types import ASGIApp, Receive, Scope, Send

_LAST_ANSWERS = 30.0  # seconds; followed documents (server-sent events) last longer and are cut


class Serving:
    """An app, and the requests that it answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests: set[asyncio.Task[object] | None] = set()

    def end(self, *, within: float = _LAST_ANSWERS) -> None:
        """Return once the last answer is given; what takes longer is cut off."""
        deadline = time.monotonic() + within
        while self.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        for task in tuple(self.requests):
            if task is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)


class Switch:
    """Serves an app, and from one request to the next another: each request sees one of them from end to end."""

    def __init__(self, app: ASGIApp) -> None:
        self._serving = Serving(app)
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. The server's lifespan and the console's websockets know nothing of an index."""
        if scope["type"] != "http":
            await self._serving.app(scope, receive, send)
            return
        task = asyncio.current_task()
        with self._lock:
            serving = self._serving
            serving.requests.add(task)
        try:
            await serving.app(scope, receive, send)
        finally:
            serving.requests.discard(task)

    def turn_to(self, app: ASGIApp) -> Serving:
        """Serve ``app`` from now on; what served before, for ``end`` to wait for."""
        with self._lock:
            before, self._serving = self._serving, Serving(app)
        return before
