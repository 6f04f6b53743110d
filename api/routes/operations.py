"""For operators and tools: lag, formats, metrics."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict

from api.lag_metrics import lag_metrics
from api.measured import Measured
from api.ports import LagMeter
from api.problems import RETRY_AFTER, Problem
from processors.media_types import SUPPORTED
from schemas.records import StageName

_LAG_TIMEOUT = 20.0
_SCRAPE_TIMEOUT = 5.0


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


def router(lag: LagMeter) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operations"])
    stages = Measured(lag.measure, max_age=1.0)
    with_retries = Measured(lambda: lag.measure(retries=True), max_age=1.0)

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

    @routes.get("/api/v1/formats", summary="Formats")
    async def formats() -> dict[str, tuple[str, ...]]:
        """The media types that can be converted, with the file name extensions that stand for them."""
        return SUPPORTED

    @routes.get("/metrics", summary="Metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text format; lag is left out while the broker does not answer."""
        try:
            groups = await with_retries.get(within=_SCRAPE_TIMEOUT)
        except Exception:
            groups = []
        return Response(generate_latest() + lag_metrics(groups), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
