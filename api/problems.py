"""Errors as RFC 9457 problem details, the same shape for every one of them."""

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api.request_ids import request_id_of
from processors.errors import OverloadedError, TransientError, UnavailableError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5.0
_MAX_ERRORS = 20

SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457 problem details. `errors` lists what is wrong with the request (422).",
    "type": "object",
    "required": ["type", "title", "status", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:aegis:problem:not-found"]},
        "title": {"type": "string", "examples": ["Not found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"loc": {"type": "array"}, "msg": {"type": "string"}, "type": {"type": "string"}},
            },
        },
    },
}

log = structlog.get_logger()


class Problem(HTTPException):
    """An answer that is an error. ``kind`` ends its type URI; ``members`` are extension members."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        later = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        super().__init__(status, detail, {**(headers or {}), **later})
        self.kind = kind
        self.members = members


def install(app: FastAPI) -> None:
    """Answer every error that reaches the application with a problem."""
    app.exception_handler(HTTPException)(_of_http_exception)
    app.exception_handler(RequestValidationError)(_of_invalid_request)
    app.exception_handler(OverloadedError)(_of_overload)
    app.exception_handler(UnavailableError)(_of_unavailable)
    app.exception_handler(TransientError)(_of_unavailable)


def problem_response(scope: Scope, problem: Problem) -> Response:
    """The problem with the request's id in it."""
    body = {
        "type": f"urn:aegis:problem:{problem.kind}",
        "title": problem.kind.replace("-", " ").capitalize(),
        "status": problem.status_code,
        "detail": problem.detail,
        "request_id": request_id_of(scope),
    }
    return _response(body | problem.members, problem.headers)


def unexpected(scope: Scope) -> Response:
    """What a client is told of a bug: nothing but the id to look for in the log."""
    return problem_response(
        scope, Problem(500, "internal-error", "something went wrong here; the log has the request id")
    )


async def _of_http_exception(request: Request, error: HTTPException) -> Response:
    if isinstance(error, Problem):
        return problem_response(request.scope, error)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
        "request_id": request_id_of(request.scope),
    }
    return _response(body, error.headers)


async def _of_invalid_request(request: Request, error: RequestValidationError) -> Response:
    errors = _without_values(error.errors())
    return problem_response(
        request.scope, Problem(422, "invalid-request", "the request is not valid; see errors", errors=errors)
    )


async def _of_overload(request: Request, error: OverloadedError) -> Response:
    detail = "more work is queued than is taken here; try again later"
    return problem_response(
        request.scope, Problem(429, "overloaded", detail, retry_after=error.retry_after or RETRY_AFTER)
    )


async def _of_unavailable(request: Request, error: UnavailableError | TransientError) -> Response:
    """The client learns that something is down, the log learns what."""
    log.warning("unavailable", path=request.url.path, error=str(error))
    detail = "a part of the system that is needed for this does not answer; try again later"
    wait = error.retry_after if isinstance(error, UnavailableError) else None
    return problem_response(request.scope, Problem(503, "unavailable", detail, retry_after=wait or RETRY_AFTER))


def _without_values(errors: Sequence[Any]) -> list[dict[str, object]]:
    """Where and what is wrong, but not what was sent: that may be large or secret."""
    return [{name: error[name] for name in ("loc", "msg", "type")} for error in errors[:_MAX_ERRORS]]


def _response(body: Mapping[str, object], headers: Mapping[str, str] | None) -> Response:
    return Response(json.dumps(body, default=str), int(str(body["status"])), headers, MEDIA_TYPE)
