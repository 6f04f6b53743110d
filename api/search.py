"""A query becomes hits: embed, then retrieve, in bounded threads."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import structlog
from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.admission import Slots
from api.measured import Measured
from api.metrics import SEARCH_SECONDS
from api.ports import GroupLag, Ports
from api.problems import Problem
from api.progress import look, wait_until_searchable
from api.retrievers.hits import Hit
from processors.errors import UnavailableError
from processors.rerankers import Reranker
from schemas.records import DocumentId, StageName

log = structlog.get_logger()

INDEX_STAGES: tuple[StageName, ...] = ("index-vectors", "index-graph")
MAX_QUERY = 8192
_THREADS = 16
_MAX_IN_FLIGHT = 128
_MAX_WAITING = 128
_LAG_MAX_AGE = 5.0


class SearchRequest(BaseModel):
    """What to search for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"query": "How many days of leave are there?", "limit": 5}}
    )

    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY)]
    limit: int = Field(10, ge=1, le=100)
    mode: Literal["hybrid", "vector", "keyword"] = Field("hybrid", description="Vectors, BM25, or both fused.")
    rerank: bool = Field(True, description="Let the reranker order the best hits, where one is set.")
    document_ids: list[DocumentId] | None = Field(
        None, min_length=1, max_length=1000, description="Search only in these documents."
    )
    wait_for: str | None = Field(
        None,
        max_length=600,
        pattern=r"^.+@[0-9]{1,19}$",
        description="`<document>@<version>`: search once that version, or a newer one, answers.",
        examples=["handbook/leave@1767225600000"],
    )
    wait_timeout: float = Field(10.0, ge=0, le=30, description="Seconds to wait for `wait_for`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedHit(Hit):
    """A hit and its place, from 1."""

    rank: int


class Timings(BaseModel):
    """Where the time went."""

    embed_ms: float
    retrieve_ms: float
    rerank_ms: float


class Freshness(BaseModel):
    """How far the indexes are behind: seconds per index stage, null where that is not known at the moment."""

    lag_seconds: dict[StageName, float | None]


class SearchResponse(BaseModel):
    """The hits, best first. ``took_ms`` includes waiting for a thread, and for ``wait_for``.

    ``reranked`` is false as well where the reranker failed: then the search's own order stands.
    """

    query: str
    hits: list[RankedHit]
    reranked: bool
    took_ms: float
    timings: Timings
    freshness: Freshness


class Search:
    """Answers search requests. More than ``_MAX_IN_FLIGHT`` at once are refused with 429."""

    def __init__(self, ports: Ports, *, rerank_candidates: int) -> None:
        self._ports = ports
        self._rerank_candidates = rerank_candidates
        self._threads = CapacityLimiter(_THREADS)
        self._searching = Slots(_MAX_IN_FLIGHT, "searches")
        self._waiting = Slots(_MAX_WAITING, "searches that wait for a document")
        self._lag = Measured(lambda: ports.lag.measure(INDEX_STAGES), max_age=_LAG_MAX_AGE)

    async def search(self, request: SearchRequest) -> SearchResponse:
        """The best hits, once ``wait_for`` is searchable.

        Raises:
            Problem: 429, too many searches; 504, ``wait_for`` is not searchable in time.
            UnavailableError: The store does not answer.
        """
        started = time.perf_counter()
        if request.wait_for is not None:
            with self._waiting.one():
                await self._wait(request.wait_for, request.wait_timeout)
        with self._searching.one():
            hits, reranked, timings = await to_thread.run_sync(self._hits, request, limiter=self._threads)
        return SearchResponse(
            query=request.query,
            hits=[_ranked(hit, rank) for rank, hit in enumerate(hits, start=1)],
            reranked=reranked,
            took_ms=_milliseconds(started, time.perf_counter()),
            timings=timings,
            freshness=Freshness(lag_seconds=_seconds(self._lag.last() or ())),
        )

    def _hits(self, request: SearchRequest) -> tuple[list[Hit], bool, Timings]:
        started = time.perf_counter()
        dense = None if request.mode == "keyword" else self._ports.embed_query(request.query)
        sparse = None if request.mode == "vector" else self._ports.encode_query(request.query)
        embedded = time.perf_counter()
        reranker = self._ports.reranker if request.rerank else None
        limit = max(request.limit, self._rerank_candidates) if reranker else request.limit
        hits = self._ports.retriever.search(dense, sparse, limit=limit, document_ids=request.document_ids)
        retrieved = time.perf_counter()
        scores = _rerank_scores(reranker, request.query, hits[: self._rerank_candidates]) if reranker else None
        if scores is not None:
            hits = reranked(hits, scores)
        done = time.perf_counter()
        moments = {"embed": (started, embedded), "retrieve": (embedded, retrieved), "rerank": (retrieved, done)}
        for step, (begun, ended) in {**moments, "total": (started, done)}.items():
            SEARCH_SECONDS.labels(step).observe(ended - begun)
        timings = Timings(**{f"{step}_ms": _milliseconds(*moment) for step, moment in moments.items()})
        return hits[: request.limit], scores is not None, timings

    async def _wait(self, wait_for: str, within: float) -> None:
        document_id, _, version = wait_for.rpartition("@")
        if await wait_until_searchable(self._ports.status, document_id, int(version), within=within):
            return
        status = await look(self._ports.status, document_id)
        where = "no stage has reported it yet"
        if status is not None:
            where = f"it is {status.state} as version {status.revision.version}"
            where += f": {status.error}" if status.error else ""
        raise Problem(
            504,
            "not-searchable-in-time",
            f"{document_id!r} is not searchable as version {version} after {within:g} s; {where}",
            document_id=document_id,
            state=status.state if status else None,
            searchable_version=status.searchable_version if status else None,
        )


def reranked(hits: Sequence[Hit], scores: Sequence[float]) -> list[Hit]:
    """The first hits by their new scores, ties as they were, then those that were not scored."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    first = [replace(hits[place], scores={**hits[place].scores, "rerank": scores[place]}) for place in order]
    return [*first, *hits[len(scores) :]]


def _rerank_scores(reranker: Reranker, query: str, hits: Sequence[Hit]) -> list[float] | None:
    try:
        scores: list[float] = reranker.rerank(query, [hit.text for hit in hits]).tolist()
    except UnavailableError as error:
        log.warning("not-reranked", reranker=reranker.name, error=str(error))
        return None
    return scores


def _ranked(hit: Hit, rank: int) -> RankedHit:
    return RankedHit(**{field.name: getattr(hit, field.name) for field in fields(hit)}, rank=rank)


def _seconds(groups: Sequence[GroupLag]) -> dict[StageName, float | None]:
    known = {group.stage: group.seconds for group in groups}
    return {stage: known.get(stage) for stage in INDEX_STAGES}


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
