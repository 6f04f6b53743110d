"""Reranking in the shape of Cohere's API (version 2), by the model that searches use."""

import uuid
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api import pools
from api.admission import Slots
from api.problems import Problem
from processors.rerankers import Reranker
from schemas.settings import Api

Text = Annotated[str, StringConstraints(min_length=1)]

_THREADS = 4
_MAX_IN_FLIGHT = 64


class RerankRequest(BaseModel):
    """A query, and the documents to order by how well they answer it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"query": "What is a broker?", "documents": ["A server.", "A fish."], "top_n": 1}
        },
    )

    query: Text
    documents: list[Text] = Field(min_length=1)
    model: str | None = Field(None, description="The reranker that is set here, or nothing.")
    top_n: int | None = Field(None, ge=1, description="Results to return; all where absent.")


class RerankResult(BaseModel):
    """A document by its place in the request, with a relevance from 0 to 1."""

    index: int
    relevance_score: float


class RerankResponse(BaseModel):
    """Results, the most relevant first."""

    id: str
    results: list[RerankResult]


def router(reranker: Reranker | None, limits: Api) -> APIRouter:
    """The route of the reranker."""
    routes = APIRouter(tags=["models"])
    threads = pools.threads("rerank", _THREADS)
    slots = Slots(_MAX_IN_FLIGHT, "rerank requests")

    @routes.post("/v1/rerank", summary="Order documents by relevance")
    async def rerank(wanted: RerankRequest) -> RerankResponse:
        """Documents, the most relevant to the query first. Answers 501 where no reranker is set."""
        if reranker is None:
            raise Problem(501, "no-reranker", "no reranker is set; AEGIS_RERANKING__BACKEND chooses one")
        _check(wanted, reranker, limits)
        with slots.one():
            scores = await to_thread.run_sync(reranker.rerank, wanted.query, wanted.documents, limiter=threads)
        order = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
        results = [RerankResult(index=index, relevance_score=float(scores[index])) for index in order[: wanted.top_n]]
        return RerankResponse(id=str(uuid.uuid4()), results=results)

    return routes


def _check(wanted: RerankRequest, reranker: Reranker, limits: Api) -> None:
    """Refuse what only the settings and the model tell to be wrong."""
    if len(wanted.documents) > limits.max_embedding_items:
        problem = f"{len(wanted.documents)} documents are more than the {limits.max_embedding_items} taken at once"
        raise RequestValidationError([{"loc": ("body", "documents"), "msg": problem, "type": "value_error"}])
    if wanted.model not in (None, reranker.name):
        problem = f"the reranker here is {reranker.name!r}"
        raise RequestValidationError([{"loc": ("body", "model"), "msg": problem, "type": "value_error"}])
