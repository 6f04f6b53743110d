"""Who extracts, and whether it is who should."""

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.measured import Measured
from api.ports import GroupLag, Ports
from schemas.settings import Extraction

_ANSWER_TIMEOUT = 3.0
_MAX_AGE = 2.0
_NOBODY_READS = ("STALL", "STOP")


class Configured(BaseModel):
    """What this process's settings ask for; the workers' should be the same."""

    pipeline: Literal["three_phase", "llm_single_pass", "legacy"]
    names: str
    relations: str


class Counts(BaseModel):
    """Documents of the last five minutes, by their last chunk; without documents there is no share."""

    texts: int
    degraded: int
    share: float | None


class Seen(BaseModel):
    """What the status topic tells. Times are seconds since the epoch."""

    running: str | None
    running_at: float | None
    degraded_since: float | None
    last_error: str | None
    last_error_at: float | None
    last_5_minutes: Counts


class Stage(BaseModel):
    """The extract stage, as the broker sees it."""

    workers: int
    verdict: str
    lag_records: int | None
    lag_seconds: float | None


class ExtractionHealth(Seen):
    """Down: nobody reads the stage's topic. Degraded: some texts were read by the next best."""

    status: Literal["ok", "degraded", "down"]
    reason: str | None
    configured: Configured
    stage: Stage | None


def router(ports: Ports, settings: Extraction) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["health"])
    lag = Measured(lambda: ports.lag.measure(["extract"])[0], max_age=_MAX_AGE)
    configured = Configured(
        pipeline="legacy" if settings.legacy else settings.pipeline, names=settings.names, relations=settings.relations
    )

    @routes.get("/health/extraction", summary="Extraction's health")
    async def extraction() -> ExtractionHealth:
        """Always 200. A worker says more of its own phases on its health port, under the same path."""
        seen = Seen.model_validate(ports.extractions.summary(time.time()))
        stage, down = await _stage(lag)
        degraded = seen.last_error if seen.degraded_since is not None else None
        return ExtractionHealth(
            **seen.model_dump(),
            status="down" if down else "degraded" if degraded else "ok",
            reason=down or degraded,
            configured=configured,
            stage=stage,
        )

    return routes


async def _stage(lag: Measured[GroupLag]) -> tuple[Stage | None, str | None]:
    """The stage, and why it is down, if it is."""
    try:
        group = await lag.get(within=_ANSWER_TIMEOUT)
    except Exception as error:
        return None, f"the broker does not answer ({type(error).__name__})"
    stage = Stage(workers=group.members, verdict=group.verdict, lag_records=group.records, lag_seconds=group.seconds)
    if not group.members:
        return stage, "no worker runs the extract stage"
    return stage, "no worker reads the chunks" if group.verdict in _NOBODY_READS else None
