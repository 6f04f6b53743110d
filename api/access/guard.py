"""The door: before a request's body is read it is known whose it is, and refused if that one may not."""

from functools import partial
from http import HTTPStatus

from anyio import CancelScope, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import pools
from api.access.access import Access
from api.access.limits import Headers as LimitHeaders
from api.access.principals import ANONYMOUS, NOBODY, principal_of, set_principal
from api.access.rules import check_names, check_permission, is_open, scope_needed
from api.metrics import route_of
from api.problems import RETRY_AFTER, Problem, problem_response
from api.request_ids import request_id_of
from processors.errors import UnavailableError

_THREADS = 8
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware: names, credentials, limits, permission; afterwards the audit log."""

    def __init__(self, app: ASGIApp, *, access: Access, hosts: frozenset[str]) -> None:
        self._app = app
        self._access = access
        self._hosts = hosts
        self._threads = pools.threads("access", _THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through with its principal, or answer it with a problem."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        set_principal(scope, NOBODY)
        try:
            left = await self._admit(scope)
        except Problem as problem:
            await self._refuse(problem, scope, receive, _with_headers(send, _SECURITY))
        else:
            await self._serve(scope, receive, _with_headers(send, {**_SECURITY, **left}))

    async def _admit(self, scope: Scope) -> LimitHeaders:
        headers = Headers(scope=scope)
        check_names(headers, self._hosts)
        if self._access.is_open:
            set_principal(scope, ANONYMOUS)
            return {}
        try:
            return await to_thread.run_sync(self._identify, scope, headers, limiter=self._threads)
        except UnavailableError as error:
            detail = "who asks cannot be found out now; try again later"
            raise Problem(503, "unavailable", detail, retry_after=error.retry_after or RETRY_AFTER) from error

    def _identify(self, scope: Scope, headers: Headers) -> LimitHeaders:
        principal = self._access.principal(_credential(headers), required=not is_open(scope["path"]))
        set_principal(scope, principal)
        left = self._access.limits.take(principal)
        check_permission(principal, scope.get("method", "GET"), scope["path"])
        return left

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, which = 500, scope["path"]

        async def send_noting(message: Message) -> None:
            nonlocal status, which
            if message["type"] == "http.response.start":
                status, which = message["status"], Headers(raw=message["headers"]).get("Location", which)
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            await self._note(scope, status, which)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": problem.detail})
            return
        await problem_response(scope, problem)(scope, receive, send)
        await self._note(scope, problem.status_code, scope["path"])

    async def _note(self, scope: Scope, status: int, which: str) -> None:
        """Into the audit log with it, if it was a write of somebody known; refused ones too, unless by the limit."""
        principal, method = principal_of(scope), scope.get("method", "GET")
        if (
            principal is NOBODY
            or status == HTTPStatus.TOO_MANY_REQUESTS
            or scope_needed(method, scope["path"]) == "read"
        ):
            return
        note = partial(
            self._access.audit.add,
            who=principal.name,
            tenant=principal.tenant,
            what=f"{method} {route_of(scope) or scope['path']}",
            which=which,
            outcome=str(status),
            request_id=request_id_of(scope),
        )
        with CancelScope(shield=True):
            await to_thread.run_sync(note, limiter=self._threads)


def _with_headers(send: Send, headers: LimitHeaders) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            for name, value in headers.items():
                MutableHeaders(scope=message).setdefault(name, value)
        await send(message)

    return send_with_headers


def _credential(headers: Headers) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("X-API-Key")
