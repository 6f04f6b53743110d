"""A query becomes hits: embed, retrieve, arrange, in bounded threads."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple, Self

import structlog
from anyio import to_thread
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints, WithJsonSchema, model_validator

from api import pools
from api.absence import Absence, Asked, Ranking, absence
from api.access.principals import Principal
from api.admission import Slots
from api.arranging import as_fused, diversified, grouped, marked, reranked
from api.measured import Measured
from api.metrics import DEGRADED, SEARCH_SECONDS
from api.ports import GroupLag, Ports
from api.problems import Problem
from api.progress import look, wait_until_searchable
from api.retrievers.hits import CANDIDATES, Hit, hits_along
from api.retrievers.walk import Walk
from api.tracing import record_phase
from processors.errors import PipelineError, UnavailableError
from processors.filters import Filter, parse, prefixed
from processors.rerankers import Reranker
from schemas.ids import document_prefix
from schemas.records import DocumentId, StageName
from schemas.storage import GRAPH

log = structlog.get_logger()

INDEX_STAGES: tuple[StageName, ...] = ("index-vectors", "index-graph")
MAX_QUERY = 8192
_THREADS = 16
_MAX_IN_FLIGHT = 128
_MAX_WAITING = 128
_LAG_MAX_AGE = 5.0
_MAX_WINDOW = 1000
_WITH_GRAPH = frozenset({"auto", "graph"})

Part = Literal["graph"]
"""A part of search that it can do without."""

_FilterField = Annotated[
    Filter,
    PlainValidator(parse),
    WithJsonSchema({"type": "object", "examples": [{"metadata.year": {"$gte": 2020}, "$not": {"source": "wiki"}}]}),
]


class SearchRequest(BaseModel):
    """What to search for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"query": "How many days of leave are there?", "limit": 5}}
    )

    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY)]
    limit: int = Field(10, ge=1, le=100)
    mode: Literal["auto", "hybrid", "vector", "keyword", "graph"] = Field(
        "auto",
        description="Vectors, BM25, or both fused (hybrid); what the graph leads to (graph); or hybrid and the graph.",
    )
    rerank: bool = Field(True, description="Let the reranker order the best hits, where one is set.")
    document_ids: list[DocumentId] | None = Field(
        None, min_length=1, max_length=1000, description="Search only in these documents."
    )
    filter: _FilterField | None = Field(
        None, description="Only documents whose metadata and other fields pass: docs/searching.md has the operators."
    )
    offset: int = Field(0, ge=0, lt=_MAX_WINDOW, description="Hits to leave out, those of the pages before.")
    window: int | None = Field(
        None,
        ge=1,
        le=_MAX_WINDOW,
        description=f"The ranking that pages are cut from is made of that many chunks of each search, and as long; "
        f"by default {CANDIDATES}, or `limit` if that is more. Keep it the same on every page.",
    )
    mmr: float | None = Field(
        None, ge=0, le=1, description="Maximal marginal relevance: 1 is relevance alone, 0 novelty alone."
    )
    group_by: Literal["document"] | None = Field(None, description="At most `group_size` hits of each document.")
    group_size: int = Field(1, ge=1, le=100)
    explain: bool = Field(False, description="Tell every stage's ranks and scores, candidates and time.")
    explain_document: DocumentId | None = Field(None, description="Tell why this document is, or is not, in here.")
    wait_for: str | None = Field(
        None,
        max_length=600,
        pattern=r"^.+@[0-9]{1,19}$",
        description="`<document>@<version>`: search once that version, or a newer one, answers.",
        examples=["handbook/leave@1767225600000"],
    )
    wait_timeout: float = Field(10.0, ge=0, le=30, description="Seconds to wait for `wait_for`.")

    @property
    def depth(self) -> int:
        """How long the ranking is that the page is cut from."""
        return self.window or max(self.limit, CANDIDATES)

    @model_validator(mode="after")
    def _page_in_window(self) -> Self:
        if self.offset >= self.depth:
            raise ValueError(
                f"offset {self.offset} lies beyond the ranking of {self.depth}; set window, at most {_MAX_WINDOW}, "
                "to the same value on every page"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedHit(Hit):
    """A hit and its place, from 1."""

    rank: int


class Timings(BaseModel):
    """Where the time went."""

    embed_ms: float
    retrieve_ms: float
    graph_ms: float
    rerank_ms: float
    arrange_ms: float


class Freshness(BaseModel):
    """How far the indexes are behind: seconds per index stage, null where that is not known at the moment."""

    lag_seconds: dict[StageName, float | None]


class StageReport(BaseModel):
    """A stage that ran: its time, and of the hits behind it how many it gave a score, by score."""

    stage: str
    ms: float
    candidates: dict[str, int]


class SearchResponse(BaseModel):
    """The hits, best first. ``took_ms`` includes waiting for a thread, and for ``wait_for``.

    ``reranked`` is false as well where the reranker failed: then the search's own order stands. ``next_offset`` is null
    where the ranking ends. ``degraded`` names what was asked and did not answer in time (``graph``): then the hits are
    those of vectors and BM25.
    """

    query: str
    hits: list[RankedHit]
    next_offset: int | None
    reranked: bool
    degraded: list[Part]
    stages: list[StageReport] | None = Field(None, description="With `explain`.")
    document: Absence | None = Field(None, description="With `explain_document`.")
    took_ms: float
    timings: Timings
    freshness: Freshness


class _Found(NamedTuple):
    hits: list[Hit]
    more: bool
    reranked: bool
    degraded: list[Part]
    timings: Timings
    stages: list[StageReport]
    document: Absence | None


class _Phases:
    """Where the time of one search goes, and what each phase left behind."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self._began_ns = time.time_ns()
        self._ms: dict[str, float] = {}
        self.reports: list[StageReport] = []

    def done(self, phase: str, hits: Sequence[Hit] = (), *, scores: Sequence[str] = ()) -> None:
        now = time.perf_counter()
        SEARCH_SECONDS.labels(phase).observe(now - self._last)
        self._ms[f"{phase}_ms"] = ms = _milliseconds(now - self._last)
        candidates = {score: sum(score in hit.scores for hit in hits) for score in scores}
        self.reports.append(StageReport(stage=phase, ms=ms, candidates=candidates))
        self._began_ns = record_phase(f"search {phase}", self._began_ns, candidates)
        self._last = time.perf_counter()

    def timings(self) -> Timings:
        SEARCH_SECONDS.labels("total").observe(self._last - self._started)
        return Timings(**self._ms)


class Search:
    """Answers search requests. More than ``_MAX_IN_FLIGHT`` at once are refused with 429."""

    def __init__(self, ports: Ports, *, rerank_candidates: int, graph_timeout: float) -> None:
        self._ports = ports
        self._walk = Walk(ports.graph, timeout=graph_timeout)
        self._rerank_candidates = rerank_candidates
        self._threads = pools.threads("search", _THREADS)
        self._searching = Slots(_MAX_IN_FLIGHT, "searches")
        self._waiting = Slots(_MAX_WAITING, "searches that wait for a document")
        self._lag = Measured(lambda: ports.lag.measure(INDEX_STAGES), max_age=_LAG_MAX_AGE)

    async def search(self, request: SearchRequest, caller: Principal) -> SearchResponse:
        """The best hits among the caller's documents, once ``wait_for`` is searchable.

        Raises:
            Problem: 429, too many searches; 504, ``wait_for`` is not searchable in time.
            UnavailableError: The store does not answer.
        """
        started = time.perf_counter()
        if request.wait_for is not None:
            with self._waiting.one():
                await self._wait(request.wait_for, request.wait_timeout, caller)
        lag = _seconds(self._lag.last() or ())
        with self._searching.one():
            find = partial(self._find, _as_stored(request, caller), caller.tenant, lag["index-vectors"])
            found = await to_thread.run_sync(find, limiter=self._threads)
        return SearchResponse(
            query=request.query,
            hits=[_ranked(hit, rank, caller) for rank, hit in enumerate(found.hits, start=request.offset + 1)],
            next_offset=request.offset + len(found.hits) if found.more else None,
            reranked=found.reranked,
            degraded=found.degraded,
            stages=found.stages if request.explain else None,
            document=found.document and found.document.shown_to(caller),
            took_ms=_milliseconds(time.perf_counter() - started),
            timings=found.timings,
            freshness=Freshness(lag_seconds=lag),
        )

    def freshness(self) -> Freshness:
        """How far the indexes are behind, as last measured."""
        return Freshness(lag_seconds=_seconds(self._lag.last() or ()))

    def _find(self, request: SearchRequest, tenant: str | None, lag: float | None) -> _Found:
        phases = _Phases()
        asked = self._asked(request, tenant)
        phases.done("embed")
        reranker = self._ports.reranker if request.rerank else None
        limit = max(request.depth, self._rerank_candidates) if reranker else request.depth
        hits = self._retrieved(asked, limit, explain=request.explain)
        phases.done("retrieve", hits, scores=("dense", "bm25", "fused"))
        along = self._along_graph(request, tenant, hits) if request.mode in _WITH_GRAPH else hits
        hits = hits if along is None else along[:limit]
        phases.done("graph", hits, scores=(GRAPH,))
        scores = _rerank_scores(reranker, request.query, hits[: self._rerank_candidates]) if reranker else None
        hits = hits if scores is None else reranked(hits, scores)
        phases.done("rerank", hits, scores=("rerank",))
        hits = self._arranged(hits[: request.depth], request)
        phases.done("arrange", hits, scores=("mmr",))
        page = range(request.offset, min(request.offset + request.limit, len(hits)))
        explained, ranking = request.explain_document, Ranking(hits, max(limit, CANDIDATES), page)
        return _Found(
            hits=hits[page.start : page.stop],
            more=page.stop < len(hits),
            reranked=scores is not None,
            degraded=["graph"] if along is None else [],
            timings=phases.timings(),
            stages=phases.reports,
            document=absence(self._ports, asked, ranking, explained, lag=lag) if explained is not None else None,
        )

    def _asked(self, request: SearchRequest, tenant: str | None) -> Asked:
        return Asked(
            query=request.query,
            dense=None if request.mode == "keyword" else self._ports.embed_query(request.query),
            sparse=None if request.mode == "vector" else self._ports.encode_query(request.query),
            document_ids=request.document_ids,
            filter_=request.filter,
            tenant=tenant,
        )

    def _retrieved(self, asked: Asked, limit: int, *, explain: bool) -> list[Hit]:
        hits = self._ports.retriever.search(
            asked.dense,
            asked.sparse,
            limit=limit,
            document_ids=asked.document_ids,
            filter_=asked.filter_,
            tenant=asked.tenant,
        )
        return as_fused(hits) if explain else hits

    def _along_graph(self, request: SearchRequest, tenant: str | None, hits: list[Hit]) -> list[Hit] | None:
        """The hits with what the graph leads to, or that alone; None where the graph does not answer in time."""
        try:
            steps = self._walk.steps(request.query, hits, tenant=tenant)
        except PipelineError as error:
            log.warning("graph-left-out", error=str(error))
            DEGRADED.labels("graph").inc()
            return None
        ids = {step.chunk_id for step in steps}.difference(hit.chunk_id for hit in hits)
        reached = self._ports.retriever.chunks(sorted(ids), filter_=request.filter, tenant=tenant) if ids else {}
        if request.document_ids is not None:
            reached = {id_: chunk for id_, chunk in reached.items() if chunk.document_id in request.document_ids}
        hits = hits_along(steps, hits, reached) if steps else hits
        return hits if request.mode == "auto" else [hit for hit in hits if GRAPH in hit.ranks]

    def _arranged(self, hits: list[Hit], request: SearchRequest) -> list[Hit]:
        hits = marked(hits, "rerank") if request.explain else hits
        if request.mmr is not None:
            vectors = self._ports.retriever.vectors([hit.chunk_id for hit in hits])
            hits = diversified(hits, vectors, weight=request.mmr)
            hits = marked(hits, "mmr") if request.explain else hits
        return grouped(hits, size=request.group_size) if request.group_by else hits

    async def _wait(self, wait_for: str, within: float, caller: Principal) -> None:
        document_id, _, version = wait_for.rpartition("@")
        stored_id = caller.stored_id(document_id)
        if await wait_until_searchable(self._ports.status, stored_id, int(version), within=within):
            return
        status = await look(self._ports.status, stored_id)
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


def _rerank_scores(reranker: Reranker, query: str, hits: Sequence[Hit]) -> list[float] | None:
    try:
        scores: list[float] = reranker.rerank(query, [hit.text for hit in hits]).tolist()
    except UnavailableError as error:
        log.warning("not-reranked", reranker=reranker.name, error=str(error))
        return None
    return scores


def _as_stored(request: SearchRequest, caller: Principal) -> SearchRequest:
    """The request in the ids of the stores."""
    ids, narrow, explained = request.document_ids, request.filter, request.explain_document
    return request.model_copy(
        update={
            "document_ids": ids and [caller.stored_id(document_id) for document_id in ids],
            "filter": narrow and prefixed(narrow, "document_id", document_prefix(caller.tenant)),
            "explain_document": explained and caller.stored_id(explained),
        }
    )


def _ranked(hit: Hit, rank: int, caller: Principal) -> RankedHit:
    shown = replace(hit, document_id=caller.shown_id(hit.document_id))
    return RankedHit(**{field.name: getattr(shown, field.name) for field in fields(shown)}, rank=rank)


def _seconds(groups: Sequence[GroupLag]) -> dict[StageName, float | None]:
    known = {group.stage: group.seconds for group in groups}
    return {stage: known.get(stage) for stage in INDEX_STAGES}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
