"""Why names are one entity or two, and what people decide about it."""

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api import pools
from api.admission import Slots
from api.outbox import Outbox
from api.ports import Publisher
from api.problems import Problem
from api.request_ids import request_id_of
from api.retrievers.entities import DecisionMade, Entities, Explanation
from api.retrievers.graph import canonical_id
from processors.resolve import Link, Refusal
from schemas.records import Verdict

_THREADS = 4
_MAX_IN_FLIGHT = 16

EntityId = Annotated[str, Path(max_length=64, description="As `GET /api/v1/entities` lists it, or one of its aliases.")]


class Links(BaseModel):
    """The links around an entity: those that make it one with its aliases, and those that do not hold."""

    links: list[Link]
    refused: list[Refusal]


class Wanted(BaseModel):
    """A decision about two entities. ``open`` takes back what was decided before."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "first": "b2a4c1e0-9d7f-5e55-8c11-0d4e8b7a2f10",
                "second": "7c1f0a52-d9e8-5b36-9a3e-5f0c2b1d4e77",
                "verdict": "same",
                "reason": "Countess Lovelace is Ada Lovelace",
            }
        },
    )

    first: str = Field(max_length=64)
    second: str = Field(max_length=64)
    verdict: Verdict
    reason: str = Field(min_length=1, max_length=1000)
    force: bool = Field(False, description="Also for entities of different types, or that no document mentions now.")


class DecisionAccepted(BaseModel):
    """The decision is in the log; the graph stage applies it."""

    first: str
    second: str
    verdict: Verdict
    version: int


class Decisions(BaseModel):
    """What people decided and did not take back, newest first."""

    decisions: list[DecisionMade]


def router(entities: Entities, publisher: Publisher) -> APIRouter:
    """The routes that explain entities, and that take decisions."""
    routes = APIRouter(tags=["graph"])
    outbox = Outbox(publisher)
    threads = pools.threads("decisions", _THREADS)
    slots = Slots(_MAX_IN_FLIGHT, "queries for links and decisions")

    async def checked(wanted: Wanted) -> tuple[str, str]:
        first, second = canonical_id(wanted.first), canonical_id(wanted.second)
        if not (first and second) or first == second:
            raise Problem(422, "invalid-decision", "a decision names two entities by their ids")
        if wanted.verdict != "open" and not wanted.force:
            with slots.one():
                types = [await to_thread.run_sync(entities.type_of, id_, limiter=threads) for id_ in (first, second)]
            _check_types([first, second], types, wanted.verdict)
        return first, second

    @routes.get("/api/v1/decisions", summary="What people decided about entities")
    async def decisions(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Decisions:
        """Decisions that hold, newest first."""
        with slots.one():
            made = await to_thread.run_sync(lambda: entities.decisions(limit=limit), limiter=threads)
        return Decisions(decisions=made)

    @routes.post("/api/v1/decisions", status_code=202, summary="Decide that two entities are one, or two")
    async def decide(request: Request, wanted: Wanted) -> DecisionAccepted:
        """Overrule the links between two entities, reversibly. It survives a rebuild of the graph from the log."""
        first, second = await checked(wanted)
        correlation_id = request_id_of(request.scope)
        send = partial(publisher.decide, first, second, wanted.verdict, wanted.reason, correlation_id=correlation_id)
        published = await outbox.send(send)
        return DecisionAccepted(first=first, second=second, verdict=wanted.verdict, version=published.version)

    @routes.get("/api/v1/entities/{entity_id}/links", summary="Why an entity has its aliases")
    async def links(entity_id: EntityId) -> Links:
        """The links between an entity's names, each with its reason; and those that do not hold, each with why."""
        with slots.one():
            found = await to_thread.run_sync(entities.resolution, entity_id, limiter=threads)
        group = found.group(canonical_id(entity_id))
        return Links(
            links=[link for link in found.links if link.first in group],
            refused=[refusal for refusal in found.refusals if group & set(refusal.link.ends)],
        )

    @routes.get("/api/v1/entities/{entity_id}/links/{other_id}", summary="Why two entities are one, or two")
    async def explain(entity_id: EntityId, other_id: EntityId) -> Explanation:
        """The chain of links from one to the other; or, where they are apart, why."""
        with slots.one():
            return await to_thread.run_sync(entities.explain, entity_id, other_id, limiter=threads)

    return routes


def _check_types(ids: list[str], types: list[str | None], verdict: Verdict) -> None:
    for id_, type_ in zip(ids, types, strict=True):
        if type_ is None:
            raise Problem(404, "unknown-entity", f"no document mentions an entity {id_!r}; force decides nevertheless")
    if verdict == "same" and types[0] != types[1]:
        detail = f"the entities are of different types, {types[0]} and {types[1]}; force joins them nevertheless"
        raise Problem(409, "different-types", detail)
