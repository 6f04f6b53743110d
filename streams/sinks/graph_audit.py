"""What the graph store holds, for a comparison, and what is wrong within it; the same Cypher on both engines.

A page is one range of ids in order, so that no more than a page is in memory. On ladybug a page of edges costs a scan
of the relations: 0.5 s at 40,000 of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from schemas.consistency import Difference
from streams.sinks import cypher
from streams.sinks.holdings import PAGE, HeldChunk, Holding, held_by_document, text_digest

Run = Callable[..., list[list[Any]]]
Result = TypeVar("Result")

_CHUNKS_PER_PAGE = 2000
_FIRST, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"

_DOCUMENTS = "MATCH (d:Document) WHERE d.id > $after RETURN d.id AS id ORDER BY id LIMIT $limit"
_CHUNKS_OF = """
UNWIND $ids AS id MATCH (d:Document {id: id})<-[:PART_OF]-(c:Chunk)
RETURN d.id, c.revision, c.chunk_index, c.live, c.text
"""
_CHUNK_IDS = "MATCH (c:Chunk) WHERE c.id > $after RETURN c.id AS id ORDER BY id LIMIT $limit"
_CHUNKS = """
MATCH (c:Chunk) WHERE c.id > $after AND c.id <= $last
RETURN c.id, c.document_id, c.chunk_index, c.mention_count, c.relation_count
"""
_OWNED = """
MATCH (c:Chunk)-[:PART_OF]->(d:Document) WHERE c.id > $after AND c.id <= $last AND d.id = c.document_id RETURN c.id
"""
_MENTIONS = """
MATCH (e:Entity)-[:MENTIONED_IN]->(c:Chunk) WHERE c.id > $after AND c.id <= $last RETURN c.id, e.id
"""
_RELATIONS = """
MATCH (s:Entity)-[r:RELATED_TO]->(t:Entity) WHERE r.chunk_id > $after AND r.chunk_id <= $last
RETURN r.chunk_id, s.id, t.id, s.name, t.name
"""
_ENTITIES = "MATCH (e:Entity) RETURN count(*)"
_UNMENTIONED = """
MATCH (e:Entity) WHERE e.id > $after AND NOT EXISTS { MATCH (e)-[:MENTIONED_IN]->(:Chunk) }
RETURN e.id AS id, e.type, e.name ORDER BY id LIMIT $limit
"""

# Each says again what is wrong: a page may be older than what a stage has written since.
_REMOVE_CHUNK = (
    "MATCH (:Entity)-[r:RELATED_TO]->(:Entity) WHERE r.chunk_id = $id DELETE r",
    "MATCH (c:Chunk {id: $id}) WHERE NOT EXISTS { MATCH (c)-[:PART_OF]->(:Document {id: c.document_id}) } "
    "DETACH DELETE c",
)
_REMOVE_RELATION = (
    """
MATCH (s:Entity {id: $source})-[r:RELATED_TO]->(t:Entity {id: $target}) WHERE r.chunk_id = $id
  AND NOT (EXISTS { MATCH (s)-[:MENTIONED_IN]->(:Chunk {id: $id}) }
           AND EXISTS { MATCH (t)-[:MENTIONED_IN]->(:Chunk {id: $id}) })
DELETE r
""",
)
_REMOVE_ENTITY = ("MATCH (e:Entity {id: $id}) WHERE NOT EXISTS { MATCH (e)-[:MENTIONED_IN]->(:Chunk) } DELETE e",)


class Transact(Protocol):
    """A graph store's transaction of its own; see ``streams.sinks.ladybug`` and ``streams.sinks.neo4j``."""

    def __call__(self, work: Callable[[Run], Result]) -> Result:
        """Do work, and commit."""


class Fault(NamedTuple):
    """What is wrong, and the statements that remove it, with their parameters; none where a republish does."""

    difference: Difference
    removal: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()

    def remove(self, run: Run) -> None:
        """Remove it, if it is still there."""
        for statement in self.removal:
            run(statement, **dict(self.parameters))


@dataclass
class Faults:
    """What is wrong on a page, and how much there was to look at."""

    found: list[Fault] = field(default_factory=list)
    chunks: int = 0
    entities: int = 0
    mentions: int = 0
    relations: int = 0


class GraphAudit:
    """``streams.sinks.holdings.Holdings`` of a graph store, and what is wrong with its nodes and edges."""

    def __init__(self, transact: Transact) -> None:
        self._transact = transact

    def document_ids(self) -> Iterator[list[str]]:
        """Pages of the documents that have a head here, in order."""
        after = ""
        while page := [id_ for (id_,) in self._rows(_DOCUMENTS, after=after, limit=PAGE)]:
            yield page
            after = page[-1]

    def holdings(self, document_ids: Sequence[str]) -> dict[str, Holding]:
        """What is held of those documents."""
        ids = list(document_ids)

        def read(run: Run) -> tuple[list[list[Any]], list[list[Any]]]:
            return run(cypher.HEADS, ids=ids), run(_CHUNKS_OF, ids=ids)

        heads, chunks = self._transact(read)
        return held_by_document(
            {row[0]: cypher.head_from(row) for row in heads if row[1] is not None},
            ((id_, HeldChunk(revision, index, live, text_digest(text))) for id_, revision, index, live, text in chunks),
        )

    def pages(self) -> Iterator[Callable[[], Faults]]:
        """Pages of chunks with their edges, then of entities; each reads its page anew whenever it is called."""
        after = _FIRST
        while after != _LAST:
            ids = self._rows(_CHUNK_IDS, after=after, limit=_CHUNKS_PER_PAGE)
            last = str(ids[-1][0]) if len(ids) == _CHUNKS_PER_PAGE else _LAST
            yield self._chunk_page(after, last)
            after = last
        after = _FIRST
        while after != _LAST:
            rows = self._rows(_UNMENTIONED, after=after, limit=_CHUNKS_PER_PAGE)
            yield self._entity_page(after)
            after = str(rows[-1][0]) if len(rows) == _CHUNKS_PER_PAGE else _LAST

    def count_entities(self) -> int:
        """Number of entities."""
        return int(self._rows(_ENTITIES)[0][0])

    def sweep(self) -> int:
        """Remove what nothing in the documents topic leads to; the number of things removed."""
        removed = 0
        for page in self.pages():
            for fault in page().found:
                if fault.removal:
                    self._transact(fault.remove)
                    removed += 1
        return removed

    def _rows(self, statement: str, **parameters: object) -> list[list[Any]]:
        return self._transact(lambda run: run(statement, **parameters))

    def _chunk_page(self, after: str, last: str) -> Callable[[], Faults]:
        between = {"after": after, "last": last}

        def read(run: Run) -> Faults:
            return _faults_of(*(run(statement, **between) for statement in (_CHUNKS, _OWNED, _MENTIONS, _RELATIONS)))

        return lambda: self._transact(read)

    def _entity_page(self, after: str) -> Callable[[], Faults]:
        def read() -> Faults:
            rows = self._rows(_UNMENTIONED, after=after, limit=_CHUNKS_PER_PAGE)
            return Faults([_unmentioned(str(id_), type_, name) for id_, type_, name in rows])

        return read


def _unmentioned(id_: str, type_: str, name: str) -> Fault:
    difference = Difference(kind="entity-unmentioned", graph=f"{type_} {name!r} ({id_})", remedy="sweep")
    return Fault(difference, _REMOVE_ENTITY, (("id", id_),))


def _faults_of(
    chunks: Sequence[Sequence[Any]],
    owned: Sequence[Sequence[Any]],
    mentions: Sequence[Sequence[Any]],
    relations: Sequence[Sequence[Any]],
) -> Faults:
    belonging = {str(id_) for (id_,) in owned}
    mentioned: defaultdict[str, list[str]] = defaultdict(list)
    for chunk, entity in mentions:
        mentioned[str(chunk)].append(str(entity))
    related = Counter(str(row[0]) for row in relations)
    faults = Faults(chunks=len(chunks), mentions=len(mentions), relations=len(relations))
    for id_, document_id, index, *expected in chunks:
        found = [len(mentioned[str(id_)]), related[str(id_)]]
        if str(id_) not in belonging:
            faults.found.append(_without_document(str(id_), document_id, index))
        elif found != expected:
            faults.found.append(_edges_differ(document_id, index, found, expected))
    known = {str(row[0]): (row[1], row[2]) for row in chunks}
    faults.found += [
        _loose(str(chunk), (str(source), str(target)), names, known.get(str(chunk)))
        for chunk, source, target, *names in relations
        if not {str(source), str(target)} <= set(mentioned[str(chunk)])
    ]
    return faults


def _without_document(id_: str, document_id: str, index: int) -> Fault:
    said = f"chunk {index} ({id_}) is part of no document"
    difference = Difference(kind="chunk-without-document", document_id=document_id, graph=said, remedy="sweep")
    return Fault(difference, _REMOVE_CHUNK, (("id", id_),))


def _edges_differ(document_id: str, index: int, found: Sequence[int], expected: Sequence[int]) -> Fault:
    said = (
        f"chunk {index} has {found[0]} mentions and {found[1]} relations; {expected[0]} and {expected[1]} were written"
    )
    return Fault(Difference(kind="edges-differ", document_id=document_id, graph=said))


def _loose(id_: str, ends: tuple[str, str], names: Sequence[str], chunk: tuple[str, int] | None) -> Fault:
    parameters = (("id", id_), ("source", ends[0]), ("target", ends[1]))
    relation = f"{names[0]!r} to {names[1]!r}"
    if chunk is None:
        said = f"{relation} by chunk {id_}, which is gone"
        difference = Difference(kind="relation-without-chunk", graph=said, remedy="sweep")
    else:
        said = f"{relation}, and chunk {chunk[1]} does not mention both"
        difference = Difference(kind="relation-unmentioned", document_id=chunk[0], graph=said, remedy="sweep")
    return Fault(difference, _REMOVE_RELATION, parameters)
