"""Metrics of the models, which both sides run; names are a contract with dashboards."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog
from prometheus_client import Counter, Gauge, Histogram

from processors.errors import UnavailableError
from processors.llm_stream import Usage
from processors.micro_batcher import BatchReport
from processors.routing.budgets import Alert, Limit
from processors.runtimes.devices import gpu_memory

log = structlog.get_logger()

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

LLM_REQUESTS = Counter(
    "aegis_llm_requests",
    "Times that a language model was thought of: answered, failed, refused, rate-limited, breaker, budget.",
    ["model", "outcome"],
)
LLM_TOKENS = Counter("aegis_llm_tokens", "Tokens of questions (prompt) and answers (completion).", ["model", "kind"])
LLM_COST = Counter("aegis_llm_cost", "Money that language models cost, in the currency of their prices.", ["model"])
LLM_FIRST_SECONDS = Histogram(
    "aegis_llm_first_token_seconds",
    "From a question sent to the first piece of its answer.",
    ["model"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
)
LLM_BUDGET = Gauge(
    "aegis_llm_budget_ratio", "Spent share of a budget, by model (or all) and period.", ["model", "period"]
)
LLM_BUDGET_ALERTS = Counter(
    "aegis_llm_budget_alerts", "Budgets of which so many percent were spent.", ["model", "period", "percent"]
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


class LlmMetrics:
    """Notes what language models do and cost."""

    def watch(self, limits: Sequence[Limit], share: Callable[[Limit], float]) -> None:
        """There are these limits."""
        for limit in limits:
            LLM_BUDGET.labels(limit.name, limit.period).set_function(partial(share, limit))

    def tried(self, model: str, outcome: str, problem: UnavailableError | None = None) -> None:
        """A model was thought of."""
        LLM_REQUESTS.labels(model, outcome).inc()
        if problem is not None:
            log.info("llm-passed-over", model=model, outcome=outcome, error=str(problem))

    def first(self, model: str, seconds: float) -> None:
        """The first piece of an answer is there."""
        LLM_FIRST_SECONDS.labels(model).observe(seconds)

    def used(self, model: str, usage: Usage, money: float) -> None:
        """A call is over."""
        LLM_TOKENS.labels(model, "prompt").inc(usage.prompt)
        LLM_TOKENS.labels(model, "completion").inc(usage.completion)
        LLM_COST.labels(model).inc(money)

    def alert(self, alert: Alert) -> None:
        """A limit is near."""
        limit = alert.limit
        LLM_BUDGET_ALERTS.labels(limit.name, limit.period, str(alert.percent)).inc()
        log.warning(
            "llm-budget",
            model=limit.name,
            period=limit.period,
            percent=alert.percent,
            spent=round(alert.spent, 6),
            limit=limit.amount,
        )
