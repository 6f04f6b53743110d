"""Metrics of the models, which both sides run; names are a contract with dashboards."""

from prometheus_client import Counter, Gauge, Histogram

from processors.micro_batcher import BatchReport
from processors.runtimes.devices import gpu_memory

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

QUEUED_TOKENS = Gauge("aegis_batcher_queued_tokens", "Tokens that wait for a forward pass.", ["model"])
QUEUE_SECONDS = Histogram(
    "aegis_batcher_queue_seconds", "From an item submitted to its forward pass.", ["model"], buckets=_SECONDS
)
BATCH_TOKENS = Histogram(
    "aegis_batcher_batch_tokens",
    "Tokens per forward pass, without padding.",
    ["model"],
    buckets=(8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536),
)
PADDING_RATIO = Histogram(
    "aegis_batcher_padding_ratio",
    "Padding's share of a forward pass.",
    ["model"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
)
TOKENISE_SECONDS = Histogram(
    "aegis_batcher_tokenise_seconds", "Tokenising the texts of one call.", ["model"], buckets=_SECONDS
)
INFERENCE_SECONDS = Histogram("aegis_batcher_inference_seconds", "One forward pass.", ["model"], buckets=_SECONDS)

EXTRACTION_SECONDS = Histogram(
    "aegis_extraction_duration_seconds",
    "One phase of extraction on one batch of chunks.",
    ["phase", "pipeline_type"],
    buckets=_SECONDS,
)
EXTRACTED_ENTITIES = Counter("aegis_extraction_entities_total", "Mentions of entities found.")
EXTRACTED_RELATIONS = Counter("aegis_extraction_relations_total", "Relations found.")
EXTRACTION_ERRORS = Counter(
    "aegis_extraction_errors_total",
    "Times that a phase could not do its work and the next best took its place.",
    ["phase", "error_type"],
)

GPU_MEMORY = Gauge("gpu_memory_usage_bytes", "Memory of CUDA devices that this process has taken; 0 without one.")
GPU_MEMORY.set_function(gpu_memory)


class ModelMetrics:
    """Notes what one model does."""

    def __init__(self, model: str) -> None:
        self._queued_tokens = QUEUED_TOKENS.labels(model)
        self._queue_seconds = QUEUE_SECONDS.labels(model)
        self._batch_tokens = BATCH_TOKENS.labels(model)
        self._padding_ratio = PADDING_RATIO.labels(model)
        self._tokenise_seconds = TOKENISE_SECONDS.labels(model)
        self._inference_seconds = INFERENCE_SECONDS.labels(model)

    def batch(self, report: BatchReport) -> None:
        """A forward pass is done."""
        for seconds in report.queue_seconds:
            self._queue_seconds.observe(seconds)
        self._queued_tokens.set(report.queued_tokens)
        self._batch_tokens.observe(report.tokens)
        self._padding_ratio.observe(1 - report.tokens / report.padded_tokens)
        self._inference_seconds.observe(report.run_seconds)

    def tokenised(self, seconds: float) -> None:
        """The texts of one call are tokens."""
        self._tokenise_seconds.observe(seconds)
