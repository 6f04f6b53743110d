"""How entities are linked to their aliases in the graph, and what people decided about pairs of them.

    (:Entity)-[:KEYED]->(:NameKey)                            a form by which names meet (processors/aliases.py)
    (:Entity)-[:ALIAS_OF {reason, score}]->(:Entity)          from a name to the one that spells it out more
    (:Decision {first, second, verdict, reason, version})     by the pair's id; whether the entities exist or not

Keys and links come with an entity and go with it, in the same transaction. They follow from the names and types of the
entities that there are, so no order of arrival shows in them. Decisions overrule links when the graph is read.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol

from processors.aliases import alias, keys, spelt_out
from schemas.ids import entity_pair_id, name_key_id
from schemas.records import Decision, Extraction
from streams.sinks.index import Store

Row = dict[str, object]

SCHEMA = (
    "CREATE NODE TABLE NameKey(id UUID PRIMARY KEY)",
    "CREATE NODE TABLE Decision(id UUID PRIMARY KEY, first STRING, second STRING, verdict STRING, reason STRING, "
    "version INT64)",
    "CREATE REL TABLE KEYED(FROM Entity TO NameKey)",
    "CREATE REL TABLE ALIAS_OF(FROM Entity TO Entity, reason STRING, score DOUBLE)",
)
NEO4J_SCHEMA = (
    "CREATE CONSTRAINT name_key_id IF NOT EXISTS FOR (k:NameKey) REQUIRE k.id IS UNIQUE",
    "CREATE CONSTRAINT decision_id IF NOT EXISTS FOR (d:Decision) REQUIRE d.id IS UNIQUE",
)

KNOWN_KEYS = "UNWIND $ids AS id MATCH (k:NameKey {id: id}) RETURN k.id"
CREATE_KEYS = "UNWIND $ids AS id CREATE (:NameKey {id: id})"
KEYED_BY = "MATCH (k:NameKey {id: $id})<-[:KEYED]-(e:Entity) RETURN k.id, e.id, e.name"
CREATE_KEYED = """
UNWIND $rows AS row MATCH (e:Entity {id: row.entity_id}) MATCH (k:NameKey {id: row.key_id}) CREATE (e)-[:KEYED]->(k)
RETURN count(*)
"""
CREATE_LINKS = """
UNWIND $rows AS row MATCH (a:Entity {id: row.alias}) MATCH (b:Entity {id: row.of})
CREATE (a)-[:ALIAS_OF {reason: row.reason, score: row.score}]->(b)
RETURN count(*)
"""
KEYS_OF = "MATCH (e:Entity {id: $entity_id})-[:KEYED]->(k:NameKey) RETURN k.id"
REMOVE_KEYS = "UNWIND $ids AS id MATCH (k:NameKey {id: id}) DELETE k"

DECISIONS_OF = "UNWIND $ids AS id MATCH (d:Decision {id: id}) RETURN d.id, d.version, d.verdict, d.reason"
CREATE_DECISIONS = "UNWIND $ids AS id CREATE (:Decision {id: id})"
SET_DECISIONS = """
UNWIND $rows AS row MATCH (d:Decision {id: row.id})
SET d.first = row.first, d.second = row.second, d.verdict = row.verdict, d.reason = row.reason,
    d.version = row.version
"""

# Neo4j only: one statement for many. Whoever adds an entity to a key, or takes one away, holds the key, then the
# entity, until the commit: two workers that create both ends of a link at once see each other.
MERGE_KEYS = "UNWIND $ids AS id MERGE (:NameKey {id: id})"
LOCK_KEYS = "UNWIND $ids AS id MATCH (k:NameKey {id: id}) SET k.locked = true REMOVE k.locked"
UNKEYED = """
UNWIND $ids AS id MATCH (e:Entity {id: id}) WHERE NOT EXISTS { MATCH (e)-[:KEYED]->(:NameKey) }
RETURN e.id, e.name, e.type
"""
KEYED_BY_EACH = "UNWIND $ids AS id MATCH (k:NameKey {id: id})<-[:KEYED]-(e:Entity) RETURN k.id, e.id, e.name"
LOCK_ENTITIES = "UNWIND $ids AS id MATCH (e:Entity {id: id}) SET e.locked = true REMOVE e.locked"
UNMENTIONED = """
UNWIND $ids AS id MATCH (e:Entity {id: id}) WHERE NOT EXISTS { MATCH (e)-[:MENTIONED_IN]->(:Chunk) } RETURN e.id
"""
KEYS_OF_EACH = """
UNWIND $ids AS id MATCH (e:Entity {id: id})-[:KEYED]->(k:NameKey) RETURN DISTINCT k.id AS id ORDER BY id
"""
REMOVE_LINKS = "UNWIND $ids AS id MATCH (e:Entity {id: id})-[r:KEYED|ALIAS_OF]-() DELETE r"
REMOVE_UNUSED_KEYS = """
UNWIND $ids AS id MATCH (k:NameKey {id: id}) WHERE NOT EXISTS { MATCH (k)<-[:KEYED]-(:Entity) } DELETE k
"""
MERGE_DECISIONS = "UNWIND $ids AS id MERGE (d:Decision {id: id}) SET d.locked = true REMOVE d.locked"

DUMPS = (
    """
MATCH (a:Entity)-[l:ALIAS_OF]->(b:Entity)
WHERE EXISTS { MATCH (a)-[:MENTIONED_IN]->(c:Chunk) WHERE c.live }
      AND EXISTS { MATCH (b)-[:MENTIONED_IN]->(c:Chunk) WHERE c.live }
RETURN 'link' AS kind, a.type AS type, a.name AS alias, b.name AS name, l.reason, l.score ORDER BY type, alias, name
""",
    """
MATCH (d:Decision) WHERE d.verdict <> 'open'
RETURN 'decision' AS kind, d.first AS first, d.second AS second, d.verdict, d.reason ORDER BY first, second
""",
)
ORPHANS = (
    "MATCH (k:NameKey) WHERE NOT EXISTS { MATCH (k)<-[:KEYED]-(:Entity) } RETURN count(*)",
    "MATCH (a:Entity)-[:ALIAS_OF]->(:Entity) WHERE NOT EXISTS { MATCH (a)-[:KEYED]->(:NameKey) } RETURN count(*)",
)


class GraphStore(Store[Extraction], Protocol):
    """The write side of a graph."""

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Keep what people decided, unless something newer about the same entities is kept already."""


def key_rows(entities: Iterable[Row]) -> list[Row]:
    """Rows for ``CREATE_KEYED``, of rows as ``CREATE_ENTITIES`` takes them."""
    return [
        {"entity_id": entity["id"], "key_id": name_key_id(str(entity["type"]), key)}
        for entity in entities
        for key in sorted(keys(str(entity["type"]), str(entity["name"])))
    ]


def link_rows(entities: Mapping[str, Row], keyed: Sequence[Row], met: Iterable[Sequence[Any]]) -> list[Row]:
    """Rows for ``CREATE_LINKS``, of new entities with each other and with those that have their keys.

    Args:
        entities: Rows of the new ones, by id.
        keyed: Their ``key_rows``.
        met: Key id, entity id and name of what had these keys before.
    """
    new, old = defaultdict[str, set[str]](set), defaultdict[str, set[tuple[str, str]]](set)
    for row in keyed:
        new[str(row["key_id"])].add(str(row["entity_id"]))
    for key, id_, name in met:
        old[str(key)].add((str(id_), name))
    pairs = {
        pair
        for key, ids in new.items()
        for pair in _pairs([(id_, str(entities[id_]["name"])) for id_ in ids], old[key])
    }
    types = {id_: str(row["type"]) for id_, row in entities.items()}
    return [row for first, second in sorted(pairs) for row in _link(types[first[0]], first, second)]


def _pairs(
    new: Sequence[tuple[str, str]], old: Iterable[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    yield from combinations(sorted(new), 2)  # the first of a pair is always a new one
    yield from ((one, other) for one in new for other in old)


def _link(type_: str, one: tuple[str, str], other: tuple[str, str]) -> Iterator[Row]:
    (of, name), (id_, alias_name) = sorted((one, other), key=lambda entity: spelt_out(entity[1]))
    if found := alias(type_, alias_name, name):
        yield {"alias": id_, "of": of, "reason": found.reason, "score": found.score}


def decision_rows(decisions: Iterable[Decision], known: Iterable[Sequence[Any]]) -> list[Row]:
    """Rows for ``SET_DECISIONS``: the newest of each pair, unless ``known`` (of ``DECISIONS_OF``) is newer."""
    newest: dict[str, Decision] = {}
    for decision in sorted(decisions, key=_age):
        newest[entity_pair_id(decision.first, decision.second)] = decision
    ages = {str(id_): tuple(age) for id_, *age in known if age[0] is not None}
    return [
        {"id": id_} | decision.model_dump(exclude={"kind"})
        for id_, decision in newest.items()
        if id_ not in ages or ages[id_] < _age(decision)
    ]


def _age(decision: Decision) -> tuple[int, str, str]:
    return (decision.version, decision.verdict, decision.reason)
