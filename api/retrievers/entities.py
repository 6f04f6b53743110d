"""Entities as people mean them: all names of one thing, by links and decisions, behind any of its ids.

What is one follows from ``processors.resolve``: links of enough score (a threshold per type), decisions over links. The
name that is spelt out most stands for all. The names of one thing are looked up from one of them link by link, so an
answer costs a few look-ups by primary key per name; ``MAX_NAMES`` bounds them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.retrievers.graph import (
    RELATIONS_FROM,
    RELATIONS_TO,
    Entity,
    EntityRelation,
    Graph,
    GraphChunk,
    canonical_id,
    relation_from_row,
)
from processors.aliases import is_short, spelt_out
from processors.resolve import Link, Resolution, resolved

MAX_NAMES = 200
"""Names of one thing that are looked up; where there are more, which ones depends on the name that was asked for."""

LINKS_FROM = "MATCH (a:Entity {id: $id})-[l:ALIAS_OF]->(b:Entity) RETURN a.id, b.id, a.type, l.reason, l.score"
LINKS_TO = "MATCH (b:Entity {id: $id})<-[l:ALIAS_OF]-(a:Entity) RETURN a.id, b.id, a.type, l.reason, l.score"
DECISIONS_ON = """
MATCH (d:Decision) WHERE d.first IN $ids OR d.second IN $ids RETURN d.first, d.second, d.verdict, d.reason, d.version
"""
DECISIONS = """
MATCH (d:Decision) WHERE d.verdict <> 'open'
RETURN d.first, d.second, d.verdict, d.reason, d.version AS version ORDER BY version DESC LIMIT $limit
"""
LIVE_CHUNKS_MENTIONING = "MATCH (e:Entity {id: $id})-[:MENTIONED_IN]->(c:Chunk) WHERE c.live RETURN c.id"


@dataclass(frozen=True)
class NamedEntity(Entity):
    """An entity under all its names; the counts are those of all of them together."""

    aliases: tuple[Entity, ...] = ()


@dataclass(frozen=True)
class Neighbourhood:
    """Entities and the relations between them."""

    entities: tuple[NamedEntity, ...]
    relations: tuple[EntityRelation, ...]


@dataclass(frozen=True)
class DecisionMade:
    """What a person decided about two entities, by id."""

    first: str
    second: str
    verdict: str
    reason: str
    version: int


@dataclass(frozen=True)
class Explanation:
    """Why two entities are one (``chain``: from the first to the second), or why they are apart (``reasons``)."""

    together: bool
    chain: tuple[Link, ...]
    reasons: tuple[str, ...]


class Reader(Protocol):
    """Entities, looked up."""

    def named(self, names: Sequence[str]) -> list[NamedEntity]:
        """The entities of those normalised names, whatever their type."""

    def entity(self, id_: str) -> NamedEntity | None:
        """The entity of that id, unless no live chunk mentions it."""

    def chunks(self, id_: str, *, limit: int) -> list[GraphChunk]:
        """The live chunks that mention it, those first that mention it most."""

    def neighbourhood(self, id_: str, *, limit: int) -> Neighbourhood:
        """Its relations of most weight, at most ``limit`` each way, and the entities at their ends."""


class OneTenant:
    """A ``Reader`` of what one tenant's documents say. Each name stands for itself."""

    def __init__(self, graph: Graph, tenant: str) -> None:
        self._graph = graph
        self._tenant = tenant

    def named(self, names: Sequence[str]) -> list[NamedEntity]:
        """The entities of those normalised names, whatever their type."""
        return [_alone(entity) for entity in self._graph.entities(names, tenant=self._tenant)]

    def entity(self, id_: str) -> NamedEntity | None:
        """The entity of that id, unless none of the tenant's live chunks mentions it."""
        entity = self._graph.entity(id_, tenant=self._tenant)
        return _alone(entity) if entity else None

    def chunks(self, id_: str, *, limit: int) -> list[GraphChunk]:
        """The tenant's live chunks that mention it, those first that mention it most."""
        return self._graph.chunks(id_, limit=limit, tenant=self._tenant)

    def neighbourhood(self, id_: str, *, limit: int) -> Neighbourhood:
        """Its relations of most weight among the tenant's chunks, at most ``limit`` each way."""
        found = self._graph.neighbourhood(id_, limit=limit, tenant=self._tenant)
        return Neighbourhood(tuple(map(_alone, found.entities)), found.relations)


class Entities:
    """Reads entities from a graph, from any thread. Raises as ``Graph``.

    Args:
        score: Links of a lower score are not followed.
        scores: The same per type of entity, where it differs.
    """

    def __init__(self, graph: Graph, *, score: float, scores: Mapping[str, float]) -> None:
        self._graph = graph
        self._score = score
        self._scores = scores

    def named(self, names: Sequence[str]) -> list[NamedEntity]:
        """The entities of which that is one of the normalised names, whatever their type."""
        return self._each(entity.id for entity in self._graph.entities(names))

    def entity(self, id_: str) -> NamedEntity | None:
        """The entity that has this id under any of its names, unless no live chunk mentions it."""
        id_ = canonical_id(id_)
        return self._entity(self.resolution(id_).group(id_)) if id_ else None

    def type_of(self, id_: str) -> str | None:
        """The type of the entity of exactly this id, unless no live chunk mentions it."""
        entity = self._graph.entity(id_)
        return entity.type if entity else None

    def chunks(self, id_: str, *, limit: int) -> list[GraphChunk]:
        """The live chunks that mention it by any name, those first that mention it most, among the best of each."""
        found: dict[str, GraphChunk] = {}
        for member in sorted(self.resolution(id_).group(canonical_id(id_))):
            for chunk in self._graph.chunks(member, limit=limit):
                before = found[chunk.id].mention_count if chunk.id in found else 0
                found[chunk.id] = GraphChunk(
                    chunk.id, chunk.document_id, chunk.chunk_index, chunk.text, before + chunk.mention_count
                )
        best_first = sorted(found.values(), key=lambda of: (-of.mention_count, of.document_id, of.chunk_index))
        return best_first[:limit]

    def neighbourhood(self, id_: str, *, limit: int) -> Neighbourhood:
        """Its relations of most weight under any name, at most ``limit`` each way, and the entities at their ends."""
        group = self.resolution(id_).group(canonical_id(id_))
        whole = self._entity(group)
        if whole is None:
            return Neighbourhood((), ())
        ends = dict.fromkeys(group, whole)
        relations = [
            relation
            for query in (RELATIONS_FROM, RELATIONS_TO)
            for relation in self._merged(self._relations(query, group, limit), ends)[:limit]
        ]
        entities = {of.id: of for of in (whole, *(ends[end] for one in relations for end in (one.source, one.target)))}
        return Neighbourhood(tuple(entities.values()), tuple(relations))

    def resolution(self, id_: str) -> Resolution:
        """What the links and decisions around an entity come to."""
        asked = canonical_id(id_)
        links, apart, known = set[Link](), set[tuple[str, str]](), {asked}
        waiting = [asked] if asked else []
        while waiting:
            decisions = self.decisions_on(waiting)
            apart |= {(of.first, of.second) for of in decisions if of.verdict == "apart"}
            met = {link for id_ in waiting for link in self._links(id_)}
            met |= {Link(of.first, of.second, of.reason, by="person") for of in decisions if of.verdict == "same"}
            links |= met
            waiting = sorted({end for link in met for end in link.ends} - known)[: max(0, MAX_NAMES - len(known))]
            known.update(waiting)
        return resolved(links, apart)

    def explain(self, first: str, second: str) -> Explanation:
        """Why two entities are one, or apart."""
        first, second = canonical_id(first), canonical_id(second)
        resolution = self.resolution(first)
        if chain := resolution.chain(first, second):
            return Explanation(True, tuple(chain), ())
        group = resolution.group(first) | resolution.group(second)
        reasons = [
            f"people told {of.first} and {of.second} apart: {of.reason}"
            for of in self.decisions_on([first, second])
            if of.verdict == "apart" and {of.first, of.second} == {first, second}
        ]
        reasons += [
            f"{of.link.first} would be {of.link.second} ({of.link.reason}), but {of.why}"
            for of in (*resolution.refusals, *self.resolution(second).refusals)
            if group & set(of.link.ends)
        ]
        reasons += [
            f"{reason} of score {score:g} is below the threshold of {self._threshold(type_):g} for {type_}"
            for one, other, type_, reason, score in self._all_links(first)
            if {one, other} == {first, second} and score < self._threshold(type_)
        ]
        return Explanation(False, (), tuple(dict.fromkeys(reasons)) or ("nothing links them",))

    def decisions(self, *, limit: int) -> list[DecisionMade]:
        """What people decided and did not take back, newest first."""
        return [DecisionMade(*row) for row in self._graph.rows(DECISIONS, limit=limit)]

    def decisions_on(self, ids: Sequence[str]) -> list[DecisionMade]:
        """What people decided about any of these entities."""
        return [DecisionMade(*row) for row in self._graph.rows(DECISIONS_ON, ids=list(ids)) if row[2] is not None]

    def _links(self, id_: str) -> list[Link]:
        return [
            Link(one, other, reason, score, is_short=is_short(reason))
            for one, other, type_, reason, score in self._all_links(id_)
            if score >= self._threshold(type_)
        ]

    def _all_links(self, id_: str) -> list[tuple[str, str, str, str, float]]:
        rows = [row for query in (LINKS_FROM, LINKS_TO) for row in self._graph.rows(query, id=id_)]
        return [(str(one), str(other), type_, reason, score) for one, other, type_, reason, score in rows]

    def _threshold(self, type_: str) -> float:
        return self._scores.get(type_, self._score)

    def _each(self, ids: Iterable[str]) -> list[NamedEntity]:
        found = {entity.id: entity for id_ in ids if (entity := self.entity(id_)) is not None}
        return list(found.values())

    def _entity(self, group: Iterable[str]) -> NamedEntity | None:
        """Many names as one, under that of them that is spelt out most."""
        names = [entity for id_ in sorted(group) if (entity := self._graph.entity(id_)) is not None]
        if not names:
            return None
        first, *others = sorted(names, key=lambda of: (spelt_out(of.name), of.id))
        chunks = (
            {row[0] for of in names for row in self._graph.rows(LIVE_CHUNKS_MENTIONING, id=of.id)} if others else ()
        )
        return NamedEntity(
            id=first.id,
            name=first.name,
            type=first.type,
            display=first.display,
            mention_count=sum(of.mention_count for of in names),
            chunk_count=len(chunks) or first.chunk_count,
            aliases=tuple(others),
        )

    def _relations(self, query: str, group: Iterable[str], limit: int) -> list[EntityRelation]:
        return [
            relation_from_row(row)
            for id_ in sorted(group)
            for row in self._graph.rows(query, id=id_, limit=limit, prefix="")
        ]

    def _merged(self, relations: Iterable[EntityRelation], ends: dict[str, NamedEntity]) -> list[EntityRelation]:
        """Relations between entities under all their names, those of most weight first; none of one with itself."""
        merged: dict[tuple[str, str, str], EntityRelation] = {}
        for relation in relations:
            source, target = (self._end(id_, ends) for id_ in (relation.source, relation.target))
            if source and target and (source.id != target.id or relation.source == relation.target):
                key = (relation.type, source.id, target.id)
                merged[key] = _with(merged.get(key), relation, source.id, target.id)
        return [merged[key] for key in sorted(merged, key=lambda key: (-merged[key].weight, key))]

    def _end(self, id_: str, ends: dict[str, NamedEntity]) -> NamedEntity | None:
        if id_ not in ends:
            group = self.resolution(id_).group(id_)
            if (entity := self._entity(group)) is None:
                return None
            ends.update(dict.fromkeys((*group, entity.id), entity))
        return ends[id_]


def _with(before: EntityRelation | None, one: EntityRelation, source: str, target: str) -> EntityRelation:
    chunks = {*one.source_chunk_ids, *(before.source_chunk_ids if before else ())}
    return EntityRelation(
        source=source,
        target=target,
        type=one.type,
        weight=len(chunks),
        confidence=max(one.confidence, before.confidence if before else 0.0),
        evidence=min(one.evidence, before.evidence) if before else one.evidence,
        source_chunk_ids=tuple(sorted(chunks)),
    )


def _alone(entity: Entity) -> NamedEntity:
    return NamedEntity(**vars(entity))
