"""For operators and tools: lag, formats, metrics."""

import asyncio
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict

from api import pools
from api.admission import Slots
from api.lag_metrics import Progress, lag_metrics, progress_metrics
from api.measured import Measured
from api.ports import Ports
from api.problems import RETRY_AFTER, Problem
from processors.media_types import SUPPORTED
from schemas.records import StageName
from schemas.status import Stuck

_LAG_TIMEOUT = 20.0
_SCRAPE_TIMEOUT = 5.0
_PROGRESS_MAX_AGE = 15.0  # the dead-letter topics are read for it
_MAX_STUCK_QUERIES = 2


class PartitionLag(BaseModel):
    """Lag of one partition; ``records`` is null where the group never committed."""

    model_config = ConfigDict(from_attributes=True)

    topic: str
    partition: int
    committed: int | None
    end: int
    records: int | None
    seconds: float | None


class GroupLag(BaseModel):
    """Lag of one consumer group; ``seconds`` is the age of the oldest record that it has not read."""

    model_config = ConfigDict(from_attributes=True)

    group: str
    stage: StageName
    topic: str
    records: int | None
    seconds: float | None
    records_per_second: float | None
    eta_seconds: float | None
    members: int
    verdict: str
    partitions: list[PartitionLag]


class StuckDocuments(BaseModel):
    """Documents without progress, the longest first."""

    documents: list[Stuck]


class Pools(BaseModel):
    """Threads that ask the stores and models, and slots of requests, each by what it is for."""

    threads: dict[str, pools.PoolUse]
    slots: dict[str, pools.PoolUse]


def router(ports: Ports) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operations"])
    stages = Measured(ports.lag.measure, max_age=1.0)
    with_retries = Measured(lambda: ports.lag.measure(retries=True), max_age=1.0)
    progress = Measured(lambda: Progress.of(ports.status, ports.dead_letters), max_age=_PROGRESS_MAX_AGE)
    slots = Slots(_MAX_STUCK_QUERIES, "searches for stuck documents")

    @routes.get("/api/v1/lag", summary="Consumer lag")
    async def consumer_lag(
        retries: Annotated[bool, Query(description="Also the groups that read the retry topics.")] = False,
    ) -> list[GroupLag]:
        """How far every stage is behind, in records and in seconds, and whether it is getting better."""
        try:
            groups = await (with_retries if retries else stages).get(within=_LAG_TIMEOUT)
        except Exception as error:
            raise Problem(503, "unavailable", "the broker does not answer", retry_after=RETRY_AFTER) from error
        return [GroupLag.model_validate(group) for group in groups]

    @routes.get("/api/v1/stuck", summary="Documents without progress")
    async def stuck_documents(
        older_than: Annotated[float, Query(ge=0, description="Seconds without progress.")] = 60.0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> StuckDocuments:
        """Unfinished documents: the stage that each waits for, and where its oldest unread record lies.

        Of each stage's unread records the first 20,000 are looked at.
        """
        with slots.one():
            return StuckDocuments(documents=list(await to_thread.run_sync(ports.stuck, older_than, limit)))

    @routes.get("/api/pool/stats", summary="Pools")
    async def pool_stats() -> Pools:
        """What is bounded here, and how much of it is in use; beyond, requests wait for a thread, or get 429."""
        return Pools(threads=pools.threads_in_use(), slots=pools.slots_in_use())

    @routes.get("/api/v1/formats", summary="Formats")
    async def formats() -> dict[str, tuple[str, ...]]:
        """The media types that can be converted, with the file name extensions that stand for them."""
        return SUPPORTED

    @routes.get("/metrics", summary="Metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text format; lag and dead letters are left out while the broker does not answer."""
        groups, how_far = await asyncio.gather(
            with_retries.get(within=_SCRAPE_TIMEOUT), progress.get(within=_SCRAPE_TIMEOUT), return_exceptions=True
        )
        lag = lag_metrics([] if isinstance(groups, BaseException) else groups)
        documents = b"" if isinstance(how_far, BaseException) else progress_metrics(how_far)
        return Response(generate_latest() + lag + documents, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
