"""The console as an ASGI application that costs nothing until somebody opens it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/console"


class Console:
    """Imports NiceGUI with the first request: it takes a second of CPU and 25 MB, and most processes never need it.

    NiceGUI is one application per process: the second console that is opened in a process fails.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._app: ASGIApp | None = None
        self._opening = asyncio.Lock()
        self._closing = AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a websocket of the console."""
        async with self._opening:
            if self._app is None:
                self._app = await self._opened()
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """What was opened while the server ran is closed when it ends."""
        async with self._closing:
            yield

    async def _opened(self) -> ASGIApp:
        app = await to_thread.run_sync(self._built)
        await self._closing.enter_async_context(app.router.lifespan_context(app))
        return app

    def _built(self) -> FastAPI:
        # Nothing is kept there: a tab's storage lives in memory. By default NiceGUI looks into the current folder.
        os.environ.setdefault("NICEGUI_STORAGE_PATH", str(self._data_dir.resolve() / "console"))
        from nicegui import ui

        from api.console import ask, dead_letters, documents, graph, health, overview

        for page in (overview, documents, dead_letters, ask, graph, health):
            page.install()
        inner = FastAPI(openapi_url=None)
        ui.run_with(inner, mount_path="/", title="Aegis Streams", dark=None, show_welcome_message=False, favicon="🛡️")
        return inner
