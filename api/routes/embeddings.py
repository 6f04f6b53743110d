"""Embeddings in the shape of OpenAI's API, from the model that searches use."""

import asyncio
import base64
import time
from concurrent.futures import Future
from typing import Annotated, Any, Literal

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.requests import ClientDisconnect

from api import pools
from api.access.principals import Caller
from api.admission import Slots
from api.ports import Embeddings
from api.problems import Problem
from processors.errors import DeadlineError
from processors.micro_batcher import Priority
from schemas.settings import Api

Vectors = NDArray[np.float32]
Text = Annotated[str, StringConstraints(min_length=1)]

_BUDGET = 30.0  # seconds
_THREADS = 4  # they tokenise and write JSON
_MAX_IN_FLIGHT = 128


def _no_token_ids(value: object) -> object:
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise ValueError("token ids are not taken, for they mean another model's tokens; send the text itself")
    return value


class EmbeddingRequest(BaseModel):
    """What to embed."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"input": ["How many days of leave are there?"]}}
    )

    input: Annotated[Text | Annotated[list[Text], Field(min_length=1)], BeforeValidator(_no_token_ids)]
    model: str | None = Field(None, description="The model that is loaded here, or nothing.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: little-endian float32.")
    dimensions: int | None = Field(None, description="The model's own dimension, or nothing.")
    user: str | None = Field(None, description="Taken for compatibility; it changes nothing.")


class Embedding(BaseModel):
    """One vector, of unit length."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens read by the model: what is beyond its limit per text is cut off and not counted."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """A vector for each text, in order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


def router(embeddings: Embeddings, limits: Api) -> APIRouter:
    """The route of the embedding model."""
    routes = APIRouter(tags=["models"])
    threads = pools.threads("embeddings", _THREADS)
    slots = Slots(_MAX_IN_FLIGHT, "embedding requests")

    def submit(texts: list[str], caller: str, deadline: float) -> tuple[Future[Vectors], int]:
        tokens = embeddings.count_tokens(texts)
        if tokens > limits.max_embedding_tokens:
            raise Problem(
                413,
                "too-many-tokens",
                f"the texts have {tokens:,} tokens, more than the {limits.max_embedding_tokens:,} one request may hold",
            )
        priority = Priority.INTERACTIVE if len(texts) == 1 else Priority.BULK
        return embeddings.submit(texts, priority=priority, caller=caller, deadline=deadline), tokens

    @routes.post("/v1/embeddings", summary="Embed texts", response_model=EmbeddingResponse)
    async def embed_texts(request: Request, caller: Caller, wanted: EmbeddingRequest) -> Response:
        """Vectors of texts, as the index holds them. One text goes before lists of texts.

        Answers 429 with `Retry-After` while too much is queued, and 504 where it was not the request's turn in time.
        """
        texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
        _check(wanted, texts, embeddings, limits)
        whose = caller.name if caller.tier else request.client.host if request.client else ""
        deadline = time.monotonic() + _BUDGET
        with slots.one():
            future, tokens = await to_thread.run_sync(submit, texts, whose, deadline, limiter=threads)
            vectors = await _result(future, request, deadline)
            usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
            body = await to_thread.run_sync(_body, vectors, wanted, embeddings.name, usage, limiter=threads)
        return Response(body, media_type="application/json")

    return routes


def _check(wanted: EmbeddingRequest, texts: list[str], embeddings: Embeddings, limits: Api) -> None:
    """Refuse what only the settings and the model tell to be wrong."""
    if len(texts) > limits.max_embedding_items:
        raise _invalid("input", f"{len(texts)} texts are more than the {limits.max_embedding_items} taken at once")
    if wanted.model not in (None, embeddings.name):
        raise _invalid("model", f"the model here is {embeddings.name!r}")
    if wanted.dimensions not in (None, embeddings.dimension):
        raise _invalid("dimensions", f"the model's vectors have {embeddings.dimension} dimensions and no other number")


def _invalid(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", field), "msg": message, "type": "value_error"}])


async def _result(future: Future[Vectors], request: Request, deadline: float) -> Vectors:
    """The vectors; on the way out the future is cancelled, whatever the way.

    Raises:
        ClientDisconnect: Nobody is there to read them.
        Problem: 504, they are not there in time.
    """
    vectors = asyncio.wrap_future(future)
    leaving = asyncio.create_task(_left(request))
    either: list[asyncio.Future[Any]] = [vectors, leaving]
    try:
        await asyncio.wait(either, timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not vectors.done():
            raise ClientDisconnect
        return vectors.result()
    except (DeadlineError, asyncio.InvalidStateError) as error:
        raise Problem(504, "not-in-time", f"the model had no time for this within {_BUDGET:g} s") from error
    finally:
        vectors.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Return when the client is gone: the body is read, nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _body(vectors: Vectors, wanted: EmbeddingRequest, model: str, usage: Usage) -> bytes:
    rows = (
        (base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors)
        if wanted.encoding_format == "base64"
        else vectors.tolist()
    )
    embedded = [Embedding(index=index, embedding=row) for index, row in enumerate(rows)]
    return EmbeddingResponse(data=embedded, model=model, usage=usage).model_dump_json().encode()
