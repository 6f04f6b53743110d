"""Every metric of the streaming side; names are a contract with dashboards."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("aegis_records", "Records a stage has settled.", ["stage", "outcome"])
BATCH_RECORDS = Histogram(
    "aegis_batch_records", "Records per micro-batch.", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
BATCH_SECONDS = Histogram("aegis_batch_duration_seconds", "From a micro-batch taken to it acknowledged.", ["stage"])
STAGE_READY = Gauge("aegis_stage_ready", "1 while the stage takes records.", ["stage"])
BREAKER_OPEN = Gauge("aegis_breaker_open", "1 once dead letters have stopped the stage.", ["stage"])
