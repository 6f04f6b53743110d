"""The knowledge graph: entities, where they are mentioned, and what is said of them."""

from dataclasses import replace
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from api import pools
from api.access.principals import Caller, Principal
from api.admission import Slots
from api.problems import Problem
from api.retrievers.entities import Entities, NamedEntity, Neighbourhood, OneTenant, Reader
from api.retrievers.graph import Graph, GraphChunk, Subgraph
from processors.dedup import folded
from schemas.ids import normalised_name

_THREADS = 8
_MAX_IN_FLIGHT = 64

EntityId = Annotated[str, Path(max_length=64, description="As `GET /api/v1/entities` lists it.")]
Name = Annotated[str, Query(min_length=1, max_length=500, description="In any spelling: accents and case are free.")]


class Found(BaseModel):
    """Entities of a name, by type."""

    entities: list[NamedEntity]


class Mentions(BaseModel):
    """The chunks that mention an entity, those first that mention it most."""

    chunks: list[GraphChunk]


def router(graph: Graph, resolved: Entities) -> APIRouter:
    """The routes that read the graph."""
    routes = APIRouter(tags=["graph"])
    threads = pools.threads("graph", _THREADS)
    slots = Slots(_MAX_IN_FLIGHT, "graph queries")

    def read(caller: Principal) -> Reader:
        """Whoever is of a tenant sees names one by one: links and decisions are made of what all tenants write."""
        return resolved if caller.tenant is None else OneTenant(graph, caller.tenant)

    async def found(entity_id: str, caller: Principal) -> NamedEntity:
        with slots.one():
            entity = await to_thread.run_sync(read(caller).entity, entity_id, limiter=threads)
        if entity is None:
            raise Problem(404, "unknown-entity", f"no document mentions an entity {entity_id!r}")
        return entity

    @routes.get("/api/v1/entities", summary="Find entities by name")
    async def entities(caller: Caller, name: Name) -> Found:
        """The entities that have this name among theirs, people and organisations of one name apart."""
        plain = normalised_name(name)
        names = sorted({folded(plain, "PERSON"), folded(plain, "ORG")})
        with slots.one():
            return Found(entities=await to_thread.run_sync(read(caller).named, names, limiter=threads))

    @routes.get("/api/v1/entities/{entity_id}", summary="One entity")
    async def entity(caller: Caller, entity_id: EntityId) -> NamedEntity:
        """An entity under all its names, by any of their ids, with how often it is mentioned."""
        return await found(entity_id, caller)

    @routes.get("/api/v1/entities/{entity_id}/chunks", summary="Where an entity is mentioned")
    async def chunks(caller: Caller, entity_id: EntityId, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Mentions:
        """Texts that mention an entity."""
        await found(entity_id, caller)
        wanted = partial(read(caller).chunks, entity_id, limit=limit)
        with slots.one():
            mentioning = await to_thread.run_sync(wanted, limiter=threads)
        return Mentions(chunks=[replace(one, document_id=caller.shown_id(one.document_id)) for one in mentioning])

    @routes.get("/api/v1/entities/{entity_id}/graph", summary="The neighbourhood of an entity")
    async def neighbourhood(
        caller: Caller, entity_id: EntityId, limit: Annotated[int, Query(ge=1, le=100)] = 25
    ) -> Neighbourhood:
        """An entity's relations of most weight, at most `limit` each way, with the sentence that says so."""
        await found(entity_id, caller)
        wanted = partial(read(caller).neighbourhood, entity_id, limit=limit)
        with slots.one():
            return await to_thread.run_sync(wanted, limiter=threads)

    @routes.get("/api/v1/graph", summary="The graph of a document")
    async def document(caller: Caller, document_id: Annotated[str, Query(min_length=1, max_length=512)]) -> Subgraph:
        """What a document mentions and relates; empty where it is not indexed, or names nothing."""
        wanted = partial(graph.document, caller.stored_id(document_id), tenant=caller.tenant)
        with slots.one():
            return await to_thread.run_sync(wanted, limiter=threads)

    return routes
