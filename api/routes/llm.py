"""The language models themselves: how they and their budgets stand, and a chat with them that knows no documents."""

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.access.rules import LANGUAGE_MODELS
from api.admission import Slots
from api.answers.generation import Generation
from api.breakers import Breakers
from api.ports import Ports, Reply
from api.problems import Problem, problem_response
from api.routes.chat import STREAM_HEADERS, as_problem, unless_left
from api.routes.completions import Message
from processors.errors import UnavailableError
from processors.llm import RateLimitedError, RefusedError, turn
from processors.routing.budgets import BudgetError
from processors.routing.overview import Overview
from schemas.settings import Answers

T = TypeVar("T")
_CHATS = "chats with language models"


class PlainRequest(BaseModel):
    """A conversation to go on with. OpenAI's other fields are taken and change nothing."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"example": {"messages": [{"role": "user", "content": "Say hello."}]}}
    )

    messages: list[Message] = Field(min_length=1, max_length=200)
    model: str | None = Field(None, description="Taken for compatibility: the settings' strategy chooses.")
    max_tokens: int = Field(800, ge=1, le=8192)
    stream: bool = False
    n: Literal[1] = 1


def router(ports: Ports, breakers: Breakers, settings: Answers) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["models"])
    slots = Slots(settings.max_in_flight, _CHATS)
    generation = (
        Generation(ports.chat, breaker=breakers.named("llm"), threads=settings.max_in_flight, pool=_CHATS)
        if ports.chat
        else None
    )

    @routes.get(LANGUAGE_MODELS, summary="Language models and budgets")
    async def language_models() -> Overview:
        """Which models may be asked and which of them rest, what they cost, and what may still be spent.

        Answers 501 where no language model is set.
        """
        return await to_thread.run_sync(_present(ports.language_models))

    @routes.post(
        f"{LANGUAGE_MODELS}/chat/completions",
        summary="Chat with a language model",
        responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
    )
    async def complete(request: Request, wanted: PlainRequest) -> Response:
        """OpenAI's shape, answered by whichever model the settings choose; no document is searched.

        `model` in the answer says who it was. Answers 429 with `Retry-After` while too many are under way, rates are
        used up, or the budget is, and 501 where no language model is set.
        """
        talk = _Talk(_present(generation), wanted, within=settings.budget)
        slots.check()
        if wanted.stream:
            chunks = talk.chunks(request, slots)
            return StreamingResponse(chunks, media_type="text/event-stream", headers=STREAM_HEADERS)
        with slots.one():
            return Response(_body(await unless_left(request, talk.whole())), media_type="application/json")

    return routes


class _Talk:
    """One request and what becomes of it."""

    def __init__(self, generation: Generation, wanted: PlainRequest, *, within: float) -> None:
        turns = [turn("system" if one.role == "developer" else one.role, one.text) for one in wanted.messages]
        self._reply: Reply | None = None
        self._pieces = generation.pieces(turns, max_tokens=wanted.max_tokens, within=within, follow=self._follow)
        self._frame = {"id": f"chatcmpl-{uuid.uuid4()}", "created": int(time.time())}

    async def whole(self) -> dict[str, Any]:
        """All of it, as one object."""
        said = "".join([piece async for piece in self._said()])
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason()}
        return self._object("chat.completion", choice) | {"usage": self._usage()}

    async def chunks(self, request: Request, slots: Slots) -> AsyncGenerator[str, None]:
        """As it comes, as server-sent events."""
        try:
            with slots.one():
                async with aclosing(self._said()) as said:
                    async for piece in said:
                        yield self._chunk({"role": "assistant", "content": piece})
                yield self._chunk({}, self._finish_reason())
        except (Problem, UnavailableError) as error:
            yield f'data: {{"error": {bytes(problem_response(request.scope, as_problem(error)).body).decode()}}}\n\n'
        yield "data: [DONE]\n\n"

    async def _said(self) -> AsyncGenerator[str, None]:
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    yield piece
        except TimeoutError as error:
            raise Problem(504, "not-in-time", "the language model did not answer in time") from error
        except (BudgetError, RateLimitedError) as error:
            kind = "budget-used-up" if isinstance(error, BudgetError) else "too-many-requests"
            raise Problem(
                429, kind, "the language models may not be asked now", retry_after=error.retry_after
            ) from error
        except RefusedError as error:
            raise Problem(422, "refused", "no language model takes this conversation; it may be too long") from error

    def _follow(self, reply: Reply) -> None:
        self._reply = reply

    def _finish_reason(self) -> str:
        return "length" if self._reply and self._reply.cut else "stop"

    def _usage(self) -> dict[str, int]:
        prompt, completion = (self._reply and self._reply.usage) or (0, 0)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _object(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return self._frame | {"object": kind, "model": self._reply and self._reply.model, "choices": [choice]}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return f"data: {_body(self._object('chat.completion.chunk', choice))}\n\n"


def _body(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _present(found: T | None) -> T:
    if found is None:
        raise Problem(501, "no-language-model", "no language model is set: AEGIS_LLM__URL, or AEGIS_LLM__MODELS")
    return found
