"""Answers: whole, as server-sent events, and in the shape of OpenAI's API."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, TypeAdapter
from starlette.requests import ClientDisconnect

from api.access.principals import Caller
from api.answers.flow import Answers
from api.answers.shapes import Answer, ChatRequest
from api.answers.state import Asked
from api.problems import Problem, problem_response
from processors.errors import OverloadedError, UnavailableError

log = structlog.get_logger()

STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
T = TypeVar("T")
_STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


def router(answers: Answers) -> APIRouter:
    """The routes of answers in our own shape."""
    routes = APIRouter(tags=["answers"])

    @routes.post("/api/v1/chat/", summary="Ask")
    async def chat(request: Request, caller: Caller, wanted: ChatRequest) -> Answer:
        """An answer with its sources, every claim cited. Without a language model it is made of quotations.

        Answers 429 with `Retry-After` while too many are under way, and 504 with what is known when the time is over.
        """
        return await whole(answers, answers.asked(wanted, caller), request)

    @routes.post(
        "/api/v1/chat/stream", summary="Ask, and read along", response_class=StreamingResponse, responses=_STREAMED
    )
    async def chat_stream(request: Request, caller: Caller, wanted: ChatRequest) -> Response:
        """Server-sent events: `search_results`, then `message` and `citation` as they come, `final_answer` at the end.

        `error` holds the problem that ended it instead.
        """
        answers.check()
        events = _events(answers, answers.asked(wanted, caller), request)
        return StreamingResponse(events, media_type="text/event-stream", headers=STREAM_HEADERS)

    return routes


async def whole(answers: Answers, asked: Asked, request: Request) -> Answer:
    """The answer at once. Raises as ``unless_left`` and ``Answers.events``."""
    return await unless_left(request, _last(answers, asked))


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; when the client leaves, the work ends.

    Raises:
        ClientDisconnect: Nobody is there to read it.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _last(answers: Answers, asked: Asked) -> Answer:
    async with aclosing(answers.events(asked)) as events:
        async for event in events:
            if isinstance(event.body, Answer):
                return event.body
    raise AssertionError("an answer has an end")


async def _left(request: Request) -> None:
    """Return when the client is gone: the body is read, nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(answers: Answers, asked: Asked, request: Request) -> AsyncGenerator[str, None]:
    try:
        async with aclosing(answers.events(asked)) as events:
            async for event in events:
                yield f"event: {event.name}\ndata: {_json(event.body)}\n\n"
    except (Problem, UnavailableError) as error:
        yield f"event: error\ndata: {bytes(problem_response(request.scope, as_problem(error)).body).decode()}\n\n"


def as_problem(error: Problem | UnavailableError) -> Problem:
    """What a stream that has begun can only tell in its last event."""
    if isinstance(error, Problem):
        return error
    log.warning("unavailable", error=str(error))
    if isinstance(error, OverloadedError):
        return Problem(429, "overloaded", "more work is queued than is taken here; try again later", retry_after=5)
    return Problem(503, "unavailable", "a part of the system that is needed for this does not answer", retry_after=5)


def _json(body: BaseModel) -> str:
    return TypeAdapter(type(body)).dump_json(body).decode()
