"""Request bodies are bounded, each one and all at once; with Content-Length before a byte is read."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem, problem_response

_MEGABYTE = 1024 * 1024
_BODIES_AT_ONCE = 4  # of the largest size


class BodyLimit:
    """ASGI middleware. ``large`` paths take bodies up to ``max_body_mb``, all others up to 1 MiB."""

    def __init__(self, app: ASGIApp, *, max_body_mb: int, large: frozenset[str]) -> None:
        self._app = app
        self._large = large
        self._max_body = max_body_mb * _MEGABYTE
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what says that it is too large, count what does not say."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_body if scope["path"] in self._large else _MEGABYTE
        length = Headers(scope=scope).get("Content-Length", "")
        if length.isdecimal() and int(length) > limit:
            await problem_response(scope, _too_large(limit))(scope, receive, send)
            return
        read = 0

        async def receive_counted() -> Message:
            nonlocal read
            message = await receive()
            size = len(message.get("body", b""))
            read += size
            self._held += size
            if read > limit:
                raise _too_large(limit)
            if self._held > _BODIES_AT_ONCE * self._max_body:
                raise Problem(503, "busy", "too many bodies are being received; try again", retry_after=1)
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._held -= read


def _too_large(limit: int) -> Problem:
    return Problem(413, "body-too-large", f"the body is larger than {limit:,} bytes, the most that is taken here")
