"""Is it alive, is it ready, and if not, why."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel

from api.access.principals import Caller
from api.access.rules import may_see_everything
from api.breakers import Breakers
from api.measured import Measured
from api.ports import Ports
from api.problems import RETRY_AFTER, Problem
from processors.breaker import BreakerState

_ANSWER_TIMEOUT = 3.0
_MAX_AGE = 2.0
T = TypeVar("T")


class Live(BaseModel):
    """The process answers."""

    status: str = "live"


class Broker(BaseModel):
    """Kafka, as seen from here."""

    ready: bool
    chunk_lag_seconds: float | None


class Index(BaseModel):
    """The store that is searched."""

    ready: bool
    chunks: int | None


class Health(BaseModel):
    """Everything this process stands on; ``reasons`` says what is not ready.

    ``status``: ``down`` is not ready; ``degraded`` leaves alone, for a while, one of ``breakers`` that is not closed.
    """

    ready: bool
    status: Literal["ok", "degraded", "down"]
    reasons: list[str]
    breakers: Mapping[str, BreakerState]
    broker: Broker
    index: Index
    stages: Mapping[str, Mapping[str, object]]


class Ready(BaseModel):
    """Requests are welcome."""

    ready: bool = True


def router(ports: Ports, chunk_lag: Measured[float | None], breakers: Breakers) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["health"])
    chunks = Measured(ports.retriever.count, max_age=_MAX_AGE)

    async def health_now() -> Health:
        lag, broker_reason = await _ask(chunk_lag, "the broker")
        count, index_reason = await _ask(chunks, "the index")
        stages = ports.healths()
        tired = [f"{name}: {stage['reason']}" for name, stage in stages.items() if not stage["ready"]]
        reasons = [reason for reason in (broker_reason, index_reason) if reason] + tired
        states = breakers.states()
        degraded = any(state != "closed" for state in states.values())
        return Health(
            ready=not reasons,
            status="down" if reasons else "degraded" if degraded else "ok",
            breakers=states,
            reasons=reasons,
            broker=Broker(ready=not broker_reason, chunk_lag_seconds=lag),
            index=Index(ready=not index_reason, chunks=count),
            stages=stages,
        )

    @routes.get("/health", summary="Health")
    async def health() -> Health:
        """Everything at once; always 200, so that it can be read while something is down."""
        return await health_now()

    @routes.get("/health/live", summary="Liveness")
    async def live() -> Live:
        """200 as long as the process answers."""
        return Live()

    @routes.get("/health/ready", summary="Readiness")
    async def ready(caller: Caller) -> Ready:
        """503 while the broker, the index or a stage of this process is not ready; who may know is told why."""
        now = await health_now()
        if not (now.ready or may_see_everything(caller)):
            raise Problem(503, "not-ready", "requests are not welcome now", retry_after=RETRY_AFTER)
        if not now.ready:
            raise Problem(503, "not-ready", "; ".join(now.reasons), retry_after=RETRY_AFTER, reasons=now.reasons)
        return Ready()

    return routes


async def _ask(measured: Measured[T], what: str) -> tuple[T | None, str | None]:
    """The answer, or the reason why there is none."""
    try:
        return await measured.get(within=_ANSWER_TIMEOUT), None
    except Exception as error:
        return None, f"{what} does not answer ({type(error).__name__})"
