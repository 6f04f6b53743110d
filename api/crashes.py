"""A bug in here is logged and answered with a 500 problem that tells nothing of it."""

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import unexpected

log = structlog.get_logger()


class Crashes:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what nothing else has answered; a response that has begun can only be cut off."""
        started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except ClientDisconnect:
            log.debug("client-left", path=scope["path"])
        except Exception:
            if scope["type"] != "http" or started:
                raise
            log.exception("unexpected", method=scope["method"], path=scope["path"])
            await unexpected(scope)(scope, receive, send)
