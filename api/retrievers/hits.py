"""What a search of the vector store returns, whichever store it is, and how rankings become hits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from processors.fuse import fuse
from schemas.records import Revision, Vector
from schemas.storage import ChunkPayload, HeadPayload, SparseVector

CANDIDATES = 50
_SCORE_DIGITS = 6  # below that, two engines' floats differ


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers a query. ``ranks`` (from 1) and ``scores`` say why: by search, ``dense`` and ``bm25``."""

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
    ) -> list[Hit]:
        """The best live chunks by either or both vectors, fused; only of ``document_ids`` when given."""

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


def hits_from_rankings(rankings: Mapping[str, Sequence[Candidate]], *, limit: int) -> list[Hit]:
    """Fuse rankings. Of a document whose revisions are just being switched, only the newest one's chunks count."""
    ordered = {name: _ordered(candidates) for name, candidates in _newest(rankings).items()}
    scores = {
        name: {found.id: round(found.score, _SCORE_DIGITS) for found in candidates}
        for name, candidates in ordered.items()
    }
    fused = fuse(scores, limit=max(limit, CANDIDATES))
    places = {
        name: {found.id: (rank, found) for rank, found in enumerate(candidates, start=1)}
        for name, candidates in ordered.items()
    }
    return [
        _hit(score, {name: found[chunk] for name, found in places.items() if chunk in found})
        for chunk, score in fused[:limit]
    ]


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
    payload = next(iter(found.values()))[1].payload
    return Hit(
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
