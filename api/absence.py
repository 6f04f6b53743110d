"""Why a document is, or is not, among the hits: one honest reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypedDict

from pydantic import BaseModel, Field

from api.access.principals import Principal
from api.ports import Ports
from api.retrievers.hits import Hit
from processors.filters import Filter, excluding
from schemas.fields import fields_of
from schemas.records import Vector
from schemas.status import DocumentState, DocumentStatus
from schemas.storage import DENSE, SPARSE, SparseVector

Reason = Literal["found", "unknown", "not-indexed", "deleted", "excluded", "no-match", "ranked-lower"]

_DEEPEST = 1000
_MAX_TERMS = 64


class Standing(BaseModel):
    """How far the document's best chunk is in one search: null ranks lie beyond 1000, a null score is no match."""

    chunk_index: int | None = None
    rank: int | None = None
    score: float | None = None
    cut_off: float | None = Field(None, description="Score of the last candidate that was taken; null if all were.")


class Absence(BaseModel):
    """Why a document is where it is in the answer, or nowhere. ``state`` and versions are what the stages reported."""

    document_id: str
    reason: Reason
    detail: str
    state: DocumentState | None = None
    version: int | None = None
    searchable_version: int | None = None
    excluded_by: str | None = Field(None, description="The clause, as a path into the request.")
    standings: dict[str, Standing] = {}
    missing_terms: list[str] = Field([], description="Words of the query that no chunk of the document has.")

    def shown_to(self, caller: Principal) -> Self:
        """The same, with the id that the caller knows the document by."""
        return self.model_copy(update={"document_id": caller.shown_id(self.document_id)})


class _Known(TypedDict, total=False):
    state: DocumentState
    version: int
    searchable_version: int | None


@dataclass(frozen=True)
class Asked:
    """What the stores are asked, in their own ids."""

    query: str
    dense: Vector | None
    sparse: SparseVector | None
    document_ids: Sequence[str] | None
    filter_: Filter | None
    tenant: str | None


@dataclass(frozen=True)
class Ranking:
    """What came of it: all hits, how many candidates each store was asked for, and which hits are the answer."""

    hits: Sequence[Hit]
    taken: int
    page: range


def absence(ports: Ports, asked: Asked, ranking: Ranking, document_id: str, *, lag: float | None) -> Absence:
    """The reason. ``lag`` is how many seconds the vector store is behind.

    Raises:
        UnavailableError: The store does not answer.
    """
    status, head = ports.status.get(document_id), ports.retriever.document(document_id)
    known = _known(status)
    if head is None or head.live_version is None:
        reason, detail = _without_chunks(status, deleted=head is not None and head.deleted, lag=lag)
        return Absence(document_id=document_id, reason=reason, detail=detail, **known)
    excluded = _excluded(ports, asked, document_id)
    if excluded is not None:
        detail = f"{excluded} of the request does not let it through"
        return Absence(document_id=document_id, reason="excluded", detail=detail, excluded_by=excluded, **known)
    standings = {
        name: _standing(ports, asked, document_id, name, taken=ranking.taken)
        for name, vector in ((DENSE, asked.dense), (SPARSE, asked.sparse))
        if vector is not None
    }
    reason, detail = _by_rank(ranking, document_id, standings)
    return Absence(
        document_id=document_id,
        reason=reason,
        detail=detail,
        standings=standings,
        missing_terms=_missing_terms(ports, asked.query, document_id),
        **known,
    )


def _known(status: DocumentStatus | None) -> _Known:
    if status is None:
        return {}
    version = status.searchable_version
    return {
        "state": status.state,
        "version": status.revision.version,
        "searchable_version": version if version >= 0 else None,
    }


def _without_chunks(status: DocumentStatus | None, *, deleted: bool, lag: float | None) -> tuple[Reason, str]:
    if status is None:
        return ("deleted", "it was deleted") if deleted else ("unknown", "no stage has reported it, no store holds it")
    if status.state == "deleted" or (deleted and status.state == "indexed"):
        return "deleted", f"it was deleted as version {status.revision.version}"
    reported = ", ".join(f"{stage} {record.state}" for stage, record in status.current.items())
    behind = "" if lag is None else f"; index-vectors is {lag:.1f} s behind"
    error = f": {status.error}" if status.error else ""
    return "not-indexed", f"it is {status.state} as version {status.revision.version} ({reported}{behind}){error}"


def _excluded(ports: Ports, asked: Asked, document_id: str) -> str | None:
    if asked.document_ids is not None and document_id not in asked.document_ids:
        return "document_ids"
    if asked.filter_ is None:
        return None
    anywhere = asked.dense if asked.dense is not None else ports.embed_query(asked.query)
    chunk = next(iter(ports.retriever.search(anywhere, None, limit=1, document_ids=[document_id])), None)
    clause = excluding(asked.filter_, fields_of(chunk, chunk.metadata)) if chunk is not None else None
    return None if clause is None else f"filter.{clause}"


def _standing(ports: Ports, asked: Asked, document_id: str, name: str, *, taken: int) -> Standing:
    vectors = (asked.dense, None) if name == DENSE else (None, asked.sparse)
    best = next(iter(ports.retriever.search(*vectors, limit=1, document_ids=[document_id])), None)
    if best is None:
        return Standing()
    deep = max(_DEEPEST, taken + 1)
    candidates = ports.retriever.search(
        *vectors, limit=deep, document_ids=asked.document_ids, filter_=asked.filter_, tenant=asked.tenant
    )
    return Standing(
        chunk_index=best.chunk_index,
        rank=next((hit.ranks[name] for hit in candidates if hit.document_id == document_id), None),
        score=best.scores[name],
        cut_off=candidates[taken - 1].scores[name] if len(candidates) > taken else None,
    )


def _by_rank(ranking: Ranking, document_id: str, standings: dict[str, Standing]) -> tuple[Reason, str]:
    place = next((place for place, hit in enumerate(ranking.hits) if hit.document_id == document_id), None)
    if place is not None and place in ranking.page:
        return "found", f"it is hit {place + 1}"
    if place is not None:
        page = f"{ranking.page.start + 1} to {ranking.page.stop}" if ranking.page else "none"
        return "ranked-lower", f"its best chunk is hit {place + 1} of the ranking; this answer has {page}"
    if all(standing.score is None for standing in standings.values()):
        return "no-match", "no chunk of it has a word of the query"
    places = ", ".join(
        f"{name} {standing.rank or f'beyond {_DEEPEST}'}"
        for name, standing in standings.items()
        if standing.score is not None
    )
    return "ranked-lower", f"others are better: its best chunk's ranks are {places}; {ranking.taken} of each are taken"


def _missing_terms(ports: Ports, query: str, document_id: str) -> list[str]:
    words = list(dict.fromkeys(query.split()))[:_MAX_TERMS]
    terms = {word: ports.encode_query(word) for word in words}
    return [
        word
        for word, sparse in terms.items()
        if sparse[0] and not ports.retriever.search(None, sparse, limit=1, document_ids=[document_id])
    ]
