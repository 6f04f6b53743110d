"""What the query side asks of the graph: entities, what is said of them, and where.

Only chunks that are live answer, and where a tenant asks, only those of its documents: tenants share the node of an
entity, but each sees what its own chunks say of it, and none that only others mention. An entity's display is the
surface form that those mentions use most, the smallest one among equals: it follows from what is in the graph, whatever
came first.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import ladybug

from processors.bridges import MAX_PLACES
from processors.errors import TransientError
from schemas.ids import document_prefix

Rows = Callable[..., list[list[Any]]]

ENTITIES_BY_NAME = "MATCH (e:Entity) WHERE e.name IN $names RETURN e.id, e.name, e.type ORDER BY e.name, e.type"
ENTITY = "MATCH (e:Entity {id: $id}) RETURN e.id, e.name, e.type"
SURFACES = """
MATCH (e:Entity {id: $id})-[m:MENTIONED_IN]->(c:Chunk) WHERE c.live AND c.document_id STARTS WITH $prefix
RETURN m.surface AS surface, sum(m.count) AS mentions, count(*) AS chunks ORDER BY mentions DESC, surface
"""
CHUNKS_MENTIONING = """
MATCH (e:Entity {id: $id})-[m:MENTIONED_IN]->(c:Chunk) WHERE c.live AND c.document_id STARTS WITH $prefix
RETURN c.id AS id, c.document_id AS document_id, c.chunk_index AS chunk_index, c.text AS text, m.count AS mentions
ORDER BY mentions DESC, document_id, chunk_index LIMIT $limit
"""
_SUPPORT = """
MATCH (c:Chunk {id: r.chunk_id}) WHERE c.live AND c.document_id STARTS WITH $prefix
WITH s.id AS source, t.id AS target, r.type AS type, count(*) AS weight, max(r.confidence) AS confidence,
     min(r.evidence) AS evidence, collect(c.id) AS chunk_ids
RETURN source, target, type, weight, confidence, evidence, chunk_ids
ORDER BY weight DESC, type, source, target LIMIT $limit
"""
RELATIONS_FROM = "MATCH (s:Entity {id: $id})-[r:RELATED_TO]->(t:Entity)" + _SUPPORT
RELATIONS_TO = "MATCH (t:Entity {id: $id})<-[r:RELATED_TO]-(s:Entity) WHERE s.id <> t.id" + _SUPPORT
LIVE_CHUNKS_OF = "MATCH (d:Document {id: $document_id})<-[:PART_OF]-(c:Chunk) WHERE c.live RETURN c.id"
ENTITIES_OF_CHUNK = "MATCH (c:Chunk {id: $id})<-[:MENTIONED_IN]-(e:Entity) RETURN e.id"
RELATIONS_OF_CHUNKS = """
MATCH (s:Entity {id: $id})-[r:RELATED_TO]->(t:Entity) WHERE r.chunk_id IN $chunk_ids
RETURN s.id AS source, t.id AS target, r.type AS type, count(*) AS weight, max(r.confidence) AS confidence,
       min(r.evidence) AS evidence, collect(r.chunk_id) AS chunk_ids
ORDER BY type, target
"""
EXISTING = "UNWIND $ids AS id MATCH (e:Entity {id: id}) RETURN e.id"
NAMES_IN = "MATCH (c:Chunk {id: $id})<-[:MENTIONED_IN]-(e:Entity) WHERE e.type <> 'DATE' RETURN e.id, e.name"
# With a parameter as limit, ladybug takes 0.5 ms instead of 0.1.
PLACES = f"""
MATCH (e:Entity {{id: $id}})-[:MENTIONED_IN]->(c:Chunk) WHERE c.live AND c.document_id STARTS WITH $prefix
RETURN c.id LIMIT {MAX_PLACES + 1}
"""
COUNTS = {
    "documents": "MATCH (c:Chunk) WHERE c.live RETURN count(DISTINCT c.document_id)",
    "chunks": "MATCH (c:Chunk) WHERE c.live RETURN count(*)",
    "entities": "MATCH (e:Entity) RETURN count(*)",
    "mentions": "MATCH (:Entity)-[m:MENTIONED_IN]->(:Chunk) RETURN count(*)",
    "relations": "MATCH (:Entity)-[r:RELATED_TO]->(:Entity) RETURN count(*)",
}


@dataclass(frozen=True)
class Entity:
    """An entity with how often live chunks mention it."""

    id: str
    name: str
    type: str
    display: str
    mention_count: int
    chunk_count: int


@dataclass(frozen=True)
class EntityRelation:
    """What chunks say of two entities; ``weight`` is the number of chunks that say so."""

    source: str
    target: str
    type: str
    weight: int
    confidence: float
    evidence: str
    source_chunk_ids: tuple[str, ...]


@dataclass(frozen=True)
class GraphChunk:
    """A chunk that mentions an entity."""

    id: str
    document_id: str
    chunk_index: int
    text: str
    mention_count: int


@dataclass(frozen=True)
class Subgraph:
    """Entities and the relations between them."""

    entities: tuple[Entity, ...]
    relations: tuple[EntityRelation, ...]


class Graph:
    """Reads from a graph, from any thread, through what runs a query on its engine.

    Raises (all methods):
        PipelineError: The graph did not answer in time, or at all.
    """

    def __init__(self, rows: Rows, *, entities_by_name: str = ENTITIES_BY_NAME) -> None:
        self._rows = rows
        self._entities_by_name = entities_by_name

    @property
    def rows(self) -> Rows:
        """Runs a query of the modules beside this one."""
        return self._rows

    def entities(self, names: Sequence[str], *, tenant: str | None = None) -> list[Entity]:
        """The entities of those normalised names, whatever their type."""
        if not names:
            return []
        rows = self._rows(self._entities_by_name, names=sorted(set(names)))
        return self._entities((row[0] for row in rows), document_prefix(tenant))

    def entity(self, id_: str, *, tenant: str | None = None) -> Entity | None:
        """The entity of that id, unless no live chunk mentions it."""
        id_ = canonical_id(id_)
        return self._entity(id_, document_prefix(tenant)) if id_ else None

    def chunks(self, entity_id: str, *, limit: int = 20, tenant: str | None = None) -> list[GraphChunk]:
        """The live chunks that mention an entity, those first that mention it most."""
        entity_id = canonical_id(entity_id)
        if not entity_id:
            return []
        rows = self._rows(CHUNKS_MENTIONING, id=entity_id, limit=limit, prefix=document_prefix(tenant))
        return [GraphChunk(str(id_), *rest) for id_, *rest in rows]

    def neighbourhood(self, entity_id: str, *, limit: int = 25, tenant: str | None = None) -> Subgraph:
        """An entity's relations of most weight, at most ``limit`` each way, and the entities at their ends."""
        entity_id = canonical_id(entity_id)
        if not entity_id:
            return Subgraph((), ())
        wanted = {"id": entity_id, "limit": limit, "prefix": document_prefix(tenant)}
        rows = [row for query in (RELATIONS_FROM, RELATIONS_TO) for row in self._rows(query, **wanted)]
        return self._subgraph([entity_id], rows, document_prefix(tenant))

    def document(self, document_id: str, *, tenant: str | None = None) -> Subgraph:
        """What a document's live chunks mention and relate, nothing if it is not the tenant's; weights count them."""
        prefix = document_prefix(tenant)
        if not document_id.startswith(prefix):
            return Subgraph((), ())
        chunk_ids = [row[0] for row in self._rows(LIVE_CHUNKS_OF, document_id=document_id)]
        mentioned = {str(row[0]) for id_ in chunk_ids for row in self._rows(ENTITIES_OF_CHUNK, id=id_)}
        ids = sorted(mentioned)
        rows = [row for id_ in ids for row in self._rows(RELATIONS_OF_CHUNKS, id=id_, chunk_ids=chunk_ids)]
        return self._subgraph(ids, rows, prefix)

    def existing(self, ids: Sequence[str]) -> list[str]:
        """Those of the entities that the graph holds."""
        return [str(row[0]) for row in self._rows(EXISTING, ids=list(ids))] if ids else []

    def names_in(self, chunk_id: str) -> dict[str, str]:
        """The entities that a chunk mentions, dates apart: their names by id."""
        return {str(id_): name for id_, name in self._rows(NAMES_IN, id=chunk_id)}

    def places(self, entity_ids: Sequence[str], *, tenant: str | None = None) -> Iterator[tuple[str, list[str]]]:
        """Each entity with ids of live chunks that mention it: all of them if they are ``MAX_PLACES`` or fewer."""
        prefix = document_prefix(tenant)
        for id_ in entity_ids:  # to ladybug, five hops from unwound ids take 50 ms
            yield id_, [str(row[0]) for row in self._rows(PLACES, id=id_, prefix=prefix)]

    def counts(self) -> Mapping[str, int]:
        """Live documents and chunks; entities, mentions and relations as held (with revisions not yet live)."""
        return {name: self._rows(query)[0][0] for name, query in COUNTS.items()}

    def _subgraph(self, ids: Sequence[str], rows: Sequence[Sequence[Any]], prefix: str) -> Subgraph:
        relations = tuple(relation_from_row(row) for row in rows)
        ends = (end for relation in relations for end in (relation.source, relation.target))
        return Subgraph(tuple(self._entities(dict.fromkeys((*ids, *ends)), prefix)), relations)

    def _entities(self, ids: Iterable[object], prefix: str) -> list[Entity]:
        return [entity for id_ in ids if (entity := self._entity(id_, prefix)) is not None]

    def _entity(self, id_: object, prefix: str) -> Entity | None:
        rows = self._rows(ENTITY, id=id_)
        surfaces = self._rows(SURFACES, id=id_, prefix=prefix) if rows else []
        if not surfaces:
            return None
        [[_, name, type_]] = rows
        return Entity(
            id=str(id_),
            name=name,
            type=type_,
            display=surfaces[0][0],
            mention_count=sum(int(mentions) for _, mentions, _ in surfaces),
            chunk_count=sum(chunks for _, _, chunks in surfaces),
        )


class LadybugGraph(Graph):
    """Reads from a ladybug database; each thread has a connection of its own.

    A query that runs longer than ``timeout`` seconds is interrupted. Measured at 20,000 chunks on a hub that 30 % of
    them mention: an entity 6 ms, its chunks 10 ms, its neighbourhood 100 ms (most of it the display of 50 neighbours).
    Entities by name scan all names: 1 ms per 10,000. Queries wait while the writer folds its log;
    ``streams/sinks/ladybug.py`` says how long.

    Raises (all methods):
        TransientError: The graph did not answer in time, or at all.
    """

    def __init__(self, database: ladybug.Database, *, timeout: float = 10.0) -> None:
        super().__init__(self._query)
        self._database = database
        self._timeout_ms = int(timeout * 1000)
        self._local = threading.local()
        self._connections: WeakSet[ladybug.Connection] = WeakSet()
        self._closed = False
        self._opening = threading.Lock()

    def close(self) -> None:
        """Interrupt what is being read; the database may be closed after it."""
        with self._opening:
            self._closed = True
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def _query(self, query: str, **parameters: object) -> list[list[Any]]:
        try:
            with self._connection().execute(query, parameters) as result:
                return list(result.get_all())
        except RuntimeError as error:
            raise TransientError(f"the graph did not answer: {error}") from error

    def _connection(self) -> ladybug.Connection:
        if not hasattr(self._local, "connection"):
            with self._opening:
                if self._closed:
                    raise RuntimeError("it is closed")
                self._local.connection = ladybug.Connection(self._database)
                self._connections.add(self._local.connection)
            self._local.connection.set_query_timeout(self._timeout_ms)
        return self._local.connection


def canonical_id(id_: str) -> str:
    """The id as it is stored; empty when it can be none."""
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        return ""


def relation_from_row(row: Sequence[Any]) -> EntityRelation:
    """A relation in a row of a query that ends like ``RELATIONS_FROM``."""
    source, target, type_, weight, confidence, evidence, chunk_ids = row
    return EntityRelation(
        source=str(source),
        target=str(target),
        type=type_,
        weight=weight,
        confidence=confidence,
        evidence=evidence,
        source_chunk_ids=tuple(sorted(map(str, chunk_ids))),
    )
