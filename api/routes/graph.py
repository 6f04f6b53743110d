"""The knowledge graph: entities, where they are mentioned, and what is said of them."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from api import pools
from api.admission import Slots
from api.problems import Problem
from api.retrievers.entities import Entities, NamedEntity, Neighbourhood
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

    async def found(entity_id: str) -> NamedEntity:
        with slots.one():
            entity = await to_thread.run_sync(resolved.entity, entity_id, limiter=threads)
        if entity is None:
            raise Problem(404, "unknown-entity", f"no document mentions an entity {entity_id!r}")
        return entity

    @routes.get("/api/v1/entities", summary="Find entities by name")
    async def entities(name: Name) -> Found:
        """The entities that have this name among theirs, people and organisations of one name apart."""
        plain = normalised_name(name)
        names = sorted({folded(plain, "PERSON"), folded(plain, "ORG")})
        with slots.one():
            return Found(entities=await to_thread.run_sync(resolved.named, names, limiter=threads))

    @routes.get("/api/v1/entities/{entity_id}", summary="One entity")
    async def entity(entity_id: EntityId) -> NamedEntity:
        """An entity under all its names, by any of their ids, with how often it is mentioned."""
        return await found(entity_id)

    @routes.get("/api/v1/entities/{entity_id}/chunks", summary="Where an entity is mentioned")
    async def chunks(entity_id: EntityId, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Mentions:
        """Texts that mention an entity."""
        await found(entity_id)
        with slots.one():
            mentioning = await to_thread.run_sync(lambda: resolved.chunks(entity_id, limit=limit), limiter=threads)
        return Mentions(chunks=mentioning)

    @routes.get("/api/v1/entities/{entity_id}/graph", summary="The neighbourhood of an entity")
    async def neighbourhood(entity_id: EntityId, limit: Annotated[int, Query(ge=1, le=100)] = 25) -> Neighbourhood:
        """An entity's relations of most weight, at most `limit` each way, with the sentence that says so."""
        await found(entity_id)
        with slots.one():
            return await to_thread.run_sync(lambda: resolved.neighbourhood(entity_id, limit=limit), limiter=threads)

    @routes.get("/api/v1/graph", summary="The graph of a document")
    async def document(document_id: Annotated[str, Query(min_length=1, max_length=512)]) -> Subgraph:
        """What a document mentions and relates; empty where it is not indexed, or names nothing."""
        with slots.one():
            return await to_thread.run_sync(graph.document, document_id, limiter=threads)

    return routes
