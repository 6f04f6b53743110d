"""Answers in the shape of OpenAI's chat completions, with citations in an extension field."""

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.access.principals import Caller, Principal
from api.answers.flow import Answers
from api.answers.shapes import MAX_QUESTION, Answer, ChatRequest, Retrieval, Said
from api.answers.state import Asked
from api.problems import Problem, problem_response
from api.routes.chat import STREAM_HEADERS, as_problem, whole
from processors.answers.prompts import Exchange
from processors.errors import UnavailableError

EXTRACTIVE = "extractive"
_HISTORY = 10  # exchanges


class TextPart(BaseModel):
    """A part of a message; only text is taken."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=65_536)] | list[TextPart]

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class CompletionRequest(BaseModel):
    """A conversation whose last question is to be answered. OpenAI's other fields are taken and change nothing."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"example": {"messages": [{"role": "user", "content": "How many days of leave are there?"}]}},
    )

    messages: list[Message] = Field(min_length=1, max_length=200, description="System messages change nothing.")
    model: str | None = Field(None, description="Taken for compatibility: the model is the one that is set.")
    stream: bool = False
    n: Literal[1] = 1
    search: Retrieval = Field(Retrieval(), description="An extension: how to search for passages.")


def router(answers: Answers) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["answers"])

    @routes.post(
        "/v1/chat/completions",
        summary="Ask in OpenAI's shape",
        responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
    )
    async def complete(request: Request, caller: Caller, wanted: CompletionRequest) -> Response:
        """An answer from the documents; the field `aegis` holds citations, claims and sources.

        With `stream`, `aegis` is in the last chunk. A stream that fails ends with a chunk that has `error`.
        """
        asked = _asked(wanted, caller)
        model = answers.model or EXTRACTIVE
        if not wanted.stream:
            answer = await whole(answers, asked, request)
            return Response(_body(_completion(answer, model)), media_type="application/json")
        answers.check()
        chunks = _chunks(answers, asked, request, model)
        return StreamingResponse(chunks, media_type="text/event-stream", headers=STREAM_HEADERS)

    return routes


def _asked(wanted: CompletionRequest, caller: Principal) -> Asked:
    """The last message, with the conversation that the client remembers for itself."""
    said = [message for message in wanted.messages if message.role in ("user", "assistant")]
    last = said[-1] if said else wanted.messages[-1]
    question = last.text.strip()
    if last.role != "user" or not 0 < len(question) <= MAX_QUESTION:
        problem = f"the last message has to be the user's, with 1 to {MAX_QUESTION} characters"
        raise RequestValidationError([{"loc": ("body", "messages"), "msg": problem, "type": "value_error"}])
    history = [
        Exchange(one.text, other.text)
        for one, other in pairwise(said)
        if (one.role, other.role) == ("user", "assistant")
    ]
    return Asked(ChatRequest(question=question, search=wanted.search), "", history[-_HISTORY:], caller)


def _completion(answer: Answer, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.answer}
    return _frame("chat.completion", model) | {
        "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(answer)}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "aegis": _extension(answer),
    }


async def _chunks(answers: Answers, asked: Asked, request: Request, model: str) -> AsyncGenerator[str, None]:
    frame = _frame("chat.completion.chunk", model)

    def chunk(delta: dict[str, str], **rest: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": rest.pop("finish_reason", None)}
        return f"data: {_body(frame | {'choices': [choice]} | rest)}\n\n"

    yield chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(answers.events(asked)) as events:
            async for event in events:
                if isinstance(event.body, Said):
                    yield chunk({"content": event.body.text})
                elif isinstance(event.body, Answer):
                    yield chunk({}, finish_reason=_finish_reason(event.body), aegis=_extension(event.body))
    except (Problem, UnavailableError) as error:
        yield f'data: {{"error": {bytes(problem_response(request.scope, as_problem(error)).body).decode()}}}\n\n'
    yield "data: [DONE]\n\n"


def _finish_reason(answer: Answer) -> str:
    return "length" if answer.outcome == "partial" else "stop"


def _extension(answer: Answer) -> dict[str, Any]:
    return answer.model_dump(mode="json", exclude={"answer", "session_id"})


def _frame(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4()}", "object": kind, "created": int(time.time()), "model": model}


def _body(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
