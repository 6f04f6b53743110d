"""Every metric of the streaming side; names are a contract with dashboards."""

from prometheus_client import Counter, Gauge, Histogram

from schemas.records import StageName
from streams.health import StageHealth

RECORDS = Counter("aegis_records", "Records a stage has settled.", ["stage", "outcome"])
BATCH_RECORDS = Histogram(
    "aegis_batch_records", "Records per micro-batch.", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
BATCH_SECONDS = Histogram("aegis_batch_duration_seconds", "From a micro-batch taken to it acknowledged.", ["stage"])
STAGE_READY = Gauge("aegis_stage_ready", "1 while the stage takes records.", ["stage"])
BREAKER_OPEN = Gauge("aegis_breaker_open", "1 once dead letters have stopped the stage.", ["stage"])

_OUTCOMES = ("delivered", "retried", "dead-lettered")


def expose(stage: StageName, health: StageHealth) -> None:
    """Show a stage from its start: Prometheus sees no increase in a counter that begins with its first record."""
    for outcome in _OUTCOMES:
        RECORDS.labels(stage, outcome)
    STAGE_READY.labels(stage).set_function(lambda: health.is_ready)
    BREAKER_OPEN.labels(stage).set_function(lambda: health.tripped is not None)
