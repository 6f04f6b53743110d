"""The Cypher that writes, checks and dumps the graph, and the rows it takes.

    (:Chunk)-[:PART_OF]->(:Document)
    (:Entity)-[:MENTIONED_IN {count, confidence, surface}]->(:Chunk)
    (:Entity)-[:RELATED_TO {type, chunk_id, evidence, confidence}]->(:Entity)    one edge per supporting chunk

How entities are linked to each other is in ``streams/sinks/links.py``.

Every statement runs on both engines except where a comment says otherwise. What the engine can look up by primary key
it does; three forms matter to ladybug 0.22 and hurt nobody else. ``MATCH (a {id: row.a}) MATCH (b {id: row.b})`` is two
lookups, with a comma it is a cross product. ``MERGE`` scans the table, so ids are looked up first and the new ones
created. A hop is cheap from ``{id: $id}``, a hop from an unwound id scans the table.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from processors.errors import PermanentError
from schemas.ids import chunk_id, entity_id
from schemas.records import Extraction, Mention, Revision
from streams.sinks import links
from streams.sinks.index import Head

Row = dict[str, object]

FORMAT = 3

# Ladybug only: tables exist before use. Ids are UUIDs there (16 bytes instead of 36, compared 3 times as fast);
# strings given as parameters are cast, results are ``uuid.UUID``.
SCHEMA = (
    "CREATE NODE TABLE Format(version INT64 PRIMARY KEY)",
    "CREATE NODE TABLE Document(id STRING PRIMARY KEY, latest_version INT64, latest_sequence INT64, "
    "live_version INT64, live_sequence INT64, complete BOOLEAN, deleted BOOLEAN, chunk_count INT64, "
    "content_hash STRING, title STRING, source STRING)",
    "CREATE NODE TABLE Chunk(id UUID PRIMARY KEY, document_id STRING, revision STRING, chunk_index INT64, "
    "live BOOLEAN, start_char INT64, end_char INT64, text STRING, mention_count INT64, relation_count INT64)",
    "CREATE NODE TABLE Entity(id UUID PRIMARY KEY, name STRING, type STRING)",
    "CREATE REL TABLE PART_OF(FROM Chunk TO Document)",
    "CREATE REL TABLE MENTIONED_IN(FROM Entity TO Chunk, count INT64, confidence DOUBLE, surface STRING)",
    "CREATE REL TABLE RELATED_TO(FROM Entity TO Entity, type STRING, chunk_id UUID, evidence STRING, "
    "confidence DOUBLE)",
    *links.SCHEMA,
    f"CREATE (:Format {{version: {FORMAT}}})",
)
TABLES = "CALL show_tables() RETURN name"
STORED_FORMAT = "MATCH (f:Format) RETURN f.version"

HEADS = """
UNWIND $ids AS id MATCH (d:Document {id: id})
RETURN d.id, d.latest_version, d.latest_sequence, d.live_version, d.live_sequence, d.complete, d.deleted,
       d.chunk_count, d.content_hash
"""
CREATE_HEADS = "UNWIND $ids AS id CREATE (:Document {id: id})"
SET_HEADS = """
UNWIND $rows AS row MATCH (d:Document {id: row.id})
SET d.latest_version = row.latest_version, d.latest_sequence = row.latest_sequence,
    d.live_version = NULL, d.live_sequence = NULL, d.complete = row.complete, d.deleted = row.deleted,
    d.chunk_count = row.chunk_count, d.content_hash = row.content_hash
"""
# Apart, because ladybug takes a parameter that is null in every row for a string.
SET_LIVE_HEADS = """
UNWIND $rows AS row MATCH (d:Document {id: row.id})
SET d.live_version = row.live_version, d.live_sequence = row.live_sequence
"""
SET_TITLES = """
UNWIND $rows AS row MATCH (d:Document {id: row.id}) SET d.title = row.title, d.source = row.source
"""
FORGET_TITLE = "MATCH (d:Document {id: $document_id}) SET d.title = NULL, d.source = NULL"

KNOWN_CHUNKS = "UNWIND $ids AS id MATCH (c:Chunk {id: id}) RETURN c.id"
KNOWN_ENTITIES = "UNWIND $ids AS id MATCH (e:Entity {id: id}) RETURN e.id"
CREATE_CHUNKS = """
UNWIND $rows AS row MATCH (d:Document {id: row.document_id})
CREATE (:Chunk {id: row.id, document_id: row.document_id, revision: row.revision, chunk_index: row.chunk_index,
                live: row.live, start_char: row.start_char, end_char: row.end_char, text: row.text,
                mention_count: row.mention_count, relation_count: row.relation_count})-[:PART_OF]->(d)
RETURN count(*)
"""
CREATE_ENTITIES = "UNWIND $rows AS row CREATE (:Entity {id: row.id, name: row.name, type: row.type})"
CREATE_MENTIONS = """
UNWIND $rows AS row MATCH (e:Entity {id: row.entity_id}) MATCH (c:Chunk {id: row.chunk_id})
CREATE (e)-[:MENTIONED_IN {count: row.count, confidence: row.confidence, surface: row.surface}]->(c)
RETURN count(*)
"""
CREATE_RELATIONS = """
UNWIND $rows AS row MATCH (s:Entity {id: row.source}) MATCH (t:Entity {id: row.target})
CREATE (s)-[:RELATED_TO {type: row.type, chunk_id: row.chunk_id, evidence: row.evidence,
                         confidence: row.confidence}]->(t)
RETURN count(*)
"""
SET_LIVE = "UNWIND $ids AS id MATCH (c:Chunk {id: id}) SET c.live = true"

CHUNKS_OF = "MATCH (d:Document {id: $document_id})<-[:PART_OF]-(c:Chunk) RETURN c.id, c.revision"
ENTITIES_OF = "MATCH (c:Chunk {id: $chunk_id})<-[:MENTIONED_IN]-(e:Entity) RETURN e.id"
REMOVE_RELATIONS = """
MATCH (s:Entity {id: $entity_id})-[r:RELATED_TO]->(:Entity) WHERE r.chunk_id IN $chunk_ids DELETE r
"""
REMOVE_CHUNKS = "UNWIND $ids AS id MATCH (c:Chunk {id: id}) DETACH DELETE c"
ONE_MENTION = "MATCH (e:Entity {id: $entity_id})-[:MENTIONED_IN]->(c:Chunk) RETURN c.id LIMIT 1"
REMOVE_ENTITIES = "UNWIND $ids AS id MATCH (e:Entity {id: id}) DETACH DELETE e"

# Neo4j only, down to HELD. Ids are strings there; several workers write at once; a statement is a round trip, so that
# one statement does what ladybug does faster in many.
NEO4J_SCHEMA = (
    "CREATE CONSTRAINT document_id IF NOT EXISTS FOR (d:Document) REQUIRE d.id IS UNIQUE",
    "CREATE CONSTRAINT chunk_id IF NOT EXISTS FOR (c:Chunk) REQUIRE c.id IS UNIQUE",
    "CREATE CONSTRAINT entity_id IF NOT EXISTS FOR (e:Entity) REQUIRE e.id IS UNIQUE",
    "CREATE CONSTRAINT format_version IF NOT EXISTS FOR (f:Format) REQUIRE f.version IS UNIQUE",
    "CREATE INDEX entity_prefix IF NOT EXISTS FOR (e:Entity) ON (e.prefix)",  # a key of an index is 8 kB at most
    "CREATE INDEX relation_chunk_id IF NOT EXISTS FOR ()-[r:RELATED_TO]-() ON (r.chunk_id)",
    *links.NEO4J_SCHEMA,
    "CALL db.awaitIndexes(60)",
)
MERGE_FORMAT = f"MERGE (:Format {{version: {FORMAT}}})"
MERGE_HEADS = "UNWIND $ids AS id MERGE (:Document {id: id})"
LOCK_HEADS = "UNWIND $ids AS id MATCH (d:Document {id: id}) SET d.locked = true REMOVE d.locked"
# A merge holds the key until the commit, so that nobody removes an entity between its lookup and its new mention.
MERGE_ENTITIES = """
UNWIND $rows AS row MERGE (e:Entity {id: row.id})
ON CREATE SET e.name = row.name, e.type = row.type, e.prefix = left(row.name, 256)
"""
SHOW_ONLY = """
MATCH (d:Document {id: $document_id})<-[:PART_OF]-(c:Chunk) WHERE c.live <> (c.revision = $revision)
SET c.live = NOT c.live
"""
CHUNKS_BUT = """
MATCH (d:Document {id: $document_id})<-[:PART_OF]-(c:Chunk) WHERE c.revision <> $revision RETURN c.id LIMIT $limit
"""
ENTITIES_OF_CHUNKS = """
UNWIND $ids AS id MATCH (c:Chunk {id: id})<-[:MENTIONED_IN]-(e:Entity) RETURN DISTINCT e.id AS id ORDER BY id
"""
REMOVE_RELATIONS_OF_CHUNKS = "UNWIND $ids AS id MATCH (:Entity)-[r:RELATED_TO {chunk_id: id}]->(:Entity) DELETE r"
# Not DETACH DELETE: a mention that another worker committed since the lookup makes it fail, instead of being removed.
REMOVE_UNMENTIONED = """
UNWIND $ids AS id MATCH (e:Entity {id: id}) WHERE NOT EXISTS { MATCH (e)-[:MENTIONED_IN]->(:Chunk) } DELETE e
"""
HELD = """
MATCH (d:Document {id: $document_id})<-[:PART_OF]-(c:Chunk) WHERE c.revision = $revision RETURN count(*)
"""

DUMPS = (
    """
MATCH (c:Chunk) WHERE c.live RETURN DISTINCT 'document' AS kind, c.document_id AS document_id ORDER BY document_id
""",
    """
MATCH (c:Chunk) WHERE c.live RETURN 'chunk' AS kind, c.document_id AS document_id, c.chunk_index AS chunk_index, c.text
ORDER BY document_id, chunk_index
""",
    """
MATCH (e:Entity)-[:MENTIONED_IN]->(c:Chunk) WHERE c.live
RETURN DISTINCT 'entity' AS kind, e.type AS type, e.name AS name ORDER BY type, name
""",
    """
MATCH (e:Entity)-[m:MENTIONED_IN]->(c:Chunk) WHERE c.live
RETURN 'mention' AS kind, e.type AS type, e.name AS name, c.document_id AS document_id, c.chunk_index AS chunk_index,
       m.count
ORDER BY type, name, document_id, chunk_index
""",
    """
MATCH (s:Entity)-[r:RELATED_TO]->(t:Entity) MATCH (c:Chunk {id: r.chunk_id}) WHERE c.live
RETURN 'relation' AS kind, s.type AS source_type, s.name AS source_name, t.type AS target_type, t.name AS target_name,
       r.type AS type, c.document_id AS document_id, c.chunk_index AS chunk_index
ORDER BY source_type, source_name, target_type, target_name, type, document_id, chunk_index
""",
    *links.DUMPS,
)
ORPHANS = (
    "MATCH (e:Entity) WHERE NOT EXISTS { MATCH (e)-[:MENTIONED_IN]->(:Chunk) } RETURN count(*)",
    "MATCH (c:Chunk) WHERE NOT EXISTS { MATCH (c)-[:PART_OF]->(:Document) } RETURN count(*)",
    "MATCH (:Entity)-[r:RELATED_TO]->(:Entity) WHERE NOT EXISTS { MATCH (c:Chunk {id: r.chunk_id}) } RETURN count(*)",
    *links.ORPHANS,
)


def head_from(row: Sequence[Any]) -> Head:
    """The head in a row of ``HEADS``."""
    _, latest_version, latest_sequence, live_version, live_sequence, complete, deleted, chunk_count, digest = row
    return Head(
        latest=Revision(latest_version, latest_sequence),
        live=None if live_version is None else Revision(live_version, live_sequence),
        complete=complete,
        deleted=deleted,
        chunk_count=chunk_count,
        content_hash=digest,
    )


def head_row(document_id: str, head: Head) -> Row:
    """A row for ``SET_HEADS``."""
    return {
        "id": document_id,
        "latest_version": head.latest.version,
        "latest_sequence": head.latest.sequence,
        "complete": head.complete,
        "deleted": head.deleted,
        "chunk_count": head.chunk_count,
        "content_hash": head.content_hash,
    }


def title_rows(heads: Mapping[str, Head], items: Iterable[Extraction]) -> list[Row]:
    """Rows for ``SET_TITLES``, of those items' documents that are among the heads."""
    chunks = {item.chunk.document_id: item.chunk for item in items if item.chunk.document_id in heads}
    return [{"id": id_, "title": chunk.title, "source": chunk.source} for id_, chunk in chunks.items()]


def live_rows(heads: Mapping[str, Head]) -> list[Row]:
    """Rows for ``SET_LIVE_HEADS``."""
    return [
        {"id": document_id, "live_version": head.live.version, "live_sequence": head.live.sequence}
        for document_id, head in heads.items()
        if head.live
    ]


def chunk_id_of(item: Extraction) -> str:
    """Id of the chunk that was extracted from."""
    return chunk_id(item.chunk.document_id, item.chunk.revision, item.chunk.chunk_index)


def chunk_row(id_: str, item: Extraction, *, live: bool) -> Row:
    """A row for ``CREATE_CHUNKS``; its counts are those of ``mention_rows`` and ``relation_rows``."""
    chunk = item.chunk
    return {
        "id": id_,
        "document_id": chunk.document_id,
        "revision": str(chunk.revision),
        "chunk_index": chunk.chunk_index,
        "live": live,
        "start_char": chunk.start,
        "end_char": chunk.end,
        "text": chunk.text,
        "mention_count": len({(of.type, of.name) for of in item.mentions}),
        "relation_count": len({(of.source, of.target, of.type) for of in item.relations}),
    }


def entity_rows(items: Iterable[Extraction]) -> dict[str, Row]:
    """Rows for ``CREATE_ENTITIES`` by id; an entity has nothing but its key, so no mention of it decides anything."""
    mentions = {entity_id(of.type, of.name): of for item in items for of in item.mentions}
    return {id_: {"id": id_, "name": of.name, "type": of.type} for id_, of in mentions.items()}


def mention_rows(chunk: str, item: Extraction) -> Iterator[Row]:
    """Rows for ``CREATE_MENTIONS``, one per entity: the most frequent surface, then the smallest."""
    by_entity: defaultdict[str, list[Mention]] = defaultdict(list)
    for mention in item.mentions:
        by_entity[entity_id(mention.type, mention.name)].append(mention)
    for entity, mentions in by_entity.items():
        surfaces = Counter(mention.text for mention in mentions)
        yield {
            "entity_id": entity,
            "chunk_id": chunk,
            "count": len(mentions),
            "confidence": max(mention.confidence for mention in mentions),
            "surface": min(surfaces, key=lambda text: (-surfaces[text], text)),
        }


def relation_rows(chunk: str, item: Extraction) -> Iterator[Row]:
    """Rows for ``CREATE_RELATIONS``, one per source, target and type: the most confident, then the smallest evidence.

    Raises:
        PermanentError: A relation names an entity that the chunk does not mention.
    """
    mentioned = {entity_id(mention.type, mention.name) for mention in item.mentions}
    worst_first = sorted(item.relations, key=lambda of: (-of.confidence, of.evidence), reverse=True)
    for relation in {(of.source, of.target, of.type): of for of in worst_first}.values():
        if not {relation.source, relation.target} <= mentioned:
            raise PermanentError(
                f"chunk {item.chunk.chunk_index} of document {item.chunk.document_id!r} relates ({relation.type}) "
                "entities that it does not mention; a relation's ends must be among its chunk's mentions"
            )
        yield {
            "source": relation.source,
            "target": relation.target,
            "type": relation.type,
            "chunk_id": chunk,
            "evidence": relation.evidence,
            "confidence": relation.confidence,
        }
