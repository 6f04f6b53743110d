"""What a search of the vector store returns, whichever store it is, and how rankings become hits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from processors.bridges import GRAPH_WEIGHT, Step, evidence
from processors.filters import Filter, matches
from processors.fuse import fuse
from schemas.fields import fields_of
from schemas.records import Revision, Vector
from schemas.storage import GRAPH, LIVE, ChunkPayload, HeadPayload, SparseVector

CANDIDATES = 50
_DEEPER = 4
_SCORE_DIGITS = 6  # below that, two engines' floats differ


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers a query. ``ranks`` (from 1) and ``scores`` say why: by ``dense``, ``bm25``, ``graph``.

    ``chunk_id`` is the same in both stores.
    """

    chunk_id: str
    document_id: str
    version: int
    chunk_index: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    title: str | None
    source: str | None
    media_type: str
    metadata: Mapping[str, Any]
    score: float
    ranks: Mapping[str, int]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DocumentState:
    """Where the vector store is with a document: the newest version seen, and the one that answers queries."""

    document_id: str
    version: int
    live_version: int | None
    complete: bool
    deleted: bool
    chunk_count: int


class Retriever(Protocol):
    """The read side of the vector store.

    Raises (all methods):
        UnavailableError: The store cannot be reached.
    """

    def search(
        self,
        dense: Vector | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        document_ids: Sequence[str] | None = None,
        filter_: Filter | None = None,
        tenant: str | None = None,
    ) -> list[Hit]:
        """The best live chunks by either or both vectors, fused.

        Only of ``document_ids``, of what passes the filter, and of the tenant's documents, each where given.
        Each search finds ``limit`` of them, or ``CANDIDATES`` if that is more.
        """

    def chunks(
        self, ids: Sequence[str], *, filter_: Filter | None = None, tenant: str | None = None
    ) -> dict[str, ChunkPayload]:
        """Those of the chunks that are live, the tenant's, and pass the filter, in the order of their ids."""

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The chunks' vectors, normalised, float32[dimension]; without those that are not there any more."""

    def count(self) -> int:
        """Number of live chunks."""

    def document(self, document_id: str) -> DocumentState | None:
        """The document's state, or None if the store never met it."""


class Candidate(NamedTuple):
    """A chunk found by one search."""

    id: str
    score: float
    payload: ChunkPayload


def candidate(point_id: object, score: float, payload: Mapping[str, Any] | None) -> Candidate:
    """A candidate from what the store returned."""
    return Candidate(str(point_id), score, ChunkPayload.model_validate(payload))


def passes(filter_: Filter | None, chunk: ChunkPayload) -> bool:
    """Whether a chunk's document passes the filter."""
    return filter_ is None or matches(filter_, fields_of(chunk, chunk.parsed_metadata()))


def passing(
    search: Callable[[Mapping[str, int]], Mapping[str, Sequence[Candidate]]],
    names: Iterable[str],
    *,
    asked: int,
    filter_: Filter | None,
) -> dict[str, list[Candidate]]:
    """The best ``asked`` candidates of each named search that pass the filter, or all there are.

    The store's own indexes let more through than the filter does where they cannot decide. What is missing then is
    looked for further down, so the cut-off is that of an exact filter. ``search`` finds the best of each named search,
    as many as it is asked for.
    """
    kept: dict[str, list[Candidate]] = {}
    wanted = dict.fromkeys(names, asked)
    while wanted:
        found = search(wanted)
        kept |= {name: [one for one in found[name] if passes(filter_, one.payload)] for name in wanted}
        wanted = {
            name: _DEEPER * count
            for name, count in wanted.items()
            if len(kept[name]) < asked and len(found[name]) == count
        }
    return {name: candidates[:asked] for name, candidates in kept.items()}


def passing_chunks(
    points: Iterable[tuple[object, Mapping[str, Any] | None]], filter_: Filter | None, tenant: str | None
) -> dict[str, ChunkPayload]:
    """By id, in order, the live chunks among the points, and of those the tenant's that pass the filter."""
    chunks = {str(id_): ChunkPayload.model_validate(payload) for id_, payload in points if payload}
    return {
        id_: chunk
        for id_, chunk in sorted(chunks.items())
        if chunk.kind == LIVE and tenant in (None, chunk.tenant) and passes(filter_, chunk)
    }


def hits_from_rankings(rankings: Mapping[str, Sequence[Candidate]], *, limit: int, asked: int) -> list[Hit]:
    """Fuse rankings of which each was asked for ``asked`` chunks.

    Of a document whose revisions are just being switched, only the newest one's chunks count.
    """
    ordered = {name: _ordered(candidates) for name, candidates in _newest(rankings).items()}
    scores = {
        name: {found.id: round(found.score, _SCORE_DIGITS) for found in candidates}
        for name, candidates in ordered.items()
    }
    fused = fuse(scores, limit=asked)
    places = {
        name: {found.id: (rank, found) for rank, found in enumerate(candidates, start=1)}
        for name, candidates in ordered.items()
    }
    return [
        _hit(score, {name: found[chunk] for name, found in places.items() if chunk in found})
        for chunk, score in fused[:limit]
    ]


def hits_along(steps: Sequence[Step], hits: Sequence[Hit], reached: Mapping[str, ChunkPayload]) -> list[Hit]:
    """Hits of the searches, best first, and what only the graph's steps reached, in order of both together.

    What no search found counts as the last hit, so that without a step to them hits keep their order. The first one
    counts as much as any can: a question that one passage answers must not lose it to what that passage leads to.
    """
    versions = {hit.document_id: hit.version for hit in hits}
    last = hits[-1].score if hits else 0.0
    others = {
        id_: _hit(last, {GRAPH: (0, Candidate(id_, 0.0, payload))})
        for id_, payload in reached.items()
        if versions.get(payload.document_id, payload.version) == payload.version
    }
    together = others | {hit.chunk_id: hit for hit in hits}
    worth = evidence(steps, {id_: (hit.title, hit.text) for id_, hit in together.items()})
    counted = worth | {hit.chunk_id: 1.0 for hit in hits[:1]}
    order = sorted(worth, key=lambda id_: (-worth[id_], id_))
    ranks = {id_: {GRAPH: rank} for rank, id_ in enumerate(order, start=1)}
    joined = [
        replace(
            hit,
            score=hit.score + GRAPH_WEIGHT * counted.get(id_, 0.0),
            ranks={**hit.ranks, **ranks.get(id_, {})},
            scores={**hit.scores, **({GRAPH: worth[id_]} if id_ in worth else {})},
        )
        for id_, hit in together.items()
    ]
    return sorted(joined, key=lambda hit: (-hit.score, hit.chunk_id))


def document_state(payload: Mapping[str, Any] | None) -> DocumentState:
    """A document's state from its head."""
    head = HeadPayload.model_validate(payload)
    return DocumentState(
        document_id=head.head_of,
        version=head.latest.version,
        live_version=head.live.version if head.live else None,
        complete=head.complete,
        deleted=head.deleted,
        chunk_count=head.chunk_count,
    )


def _newest(rankings: Mapping[str, Sequence[Candidate]]) -> dict[str, list[Candidate]]:
    newest: dict[str, Revision] = {}
    for candidates in rankings.values():
        for found in candidates:
            revision, document_id = _revision(found), found.payload.document_id
            newest[document_id] = max(newest.get(document_id, revision), revision)
    return {
        name: [found for found in candidates if _revision(found) == newest[found.payload.document_id]]
        for name, candidates in rankings.items()
    }


def _revision(found: Candidate) -> Revision:
    return Revision(found.payload.version, found.payload.sequence)


def _ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda found: (-round(found.score, _SCORE_DIGITS), found.id))


def _hit(score: float, found: Mapping[str, tuple[int, Candidate]]) -> Hit:
    _, best = next(iter(found.values()))
    payload = best.payload
    return Hit(
        chunk_id=best.id,
        document_id=payload.document_id,
        version=payload.version,
        chunk_index=payload.chunk_index,
        text=payload.text,
        start=payload.start,
        end=payload.end,
        headings=payload.headings,
        title=payload.title,
        source=payload.source,
        media_type=payload.media_type,
        metadata=payload.parsed_metadata(),
        score=score,
        ranks={name: rank for name, (rank, _) in found.items()},
        scores={name: ranked.score for name, (_, ranked) in found.items()},
    )
