"""The Grafana dashboards: what each shows is said here, the JSON under deploy/grafana is generated (`make docs`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana"

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_COLUMNS, _HEIGHT = 24, 8
_GRAFANA_SCHEMA = 39


@dataclass(frozen=True)
class Panel:
    """A picture of some queries; ``unit`` is one of Grafana's, a query's legend is a template of its labels."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 12
    kind: str = "timeseries"
    about: str = ""


def _rate(metric: str, by: str, selector: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str, selector: str = "") -> str:
    return f"histogram_quantile({quantile}, sum by ({by}, le) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"


def _p50_p95(metric: str, by: str, selector: str = "") -> Sequence[tuple[str, str]]:
    return [(_quantile(q, metric, by, selector), f"{{{{{by}}}}} p{round(100 * q)}") for q in (0.5, 0.95)]


_REQUESTS = "aegis_http_request_duration_seconds"
_OUR_GROUPS = 'consumergroup=~"aegis-.*"'

DASHBOARDS: dict[str, tuple[str, Sequence[Panel]]] = {
    "api": (
        "Aegis: API",
        [
            Panel("Requests", [(_rate(f"{_REQUESTS}_count", "route"), "{{route}}")], "reqps"),
            Panel("Errors (5xx)", [(_rate(f"{_REQUESTS}_count", "route", 'status=~"5.."'), "{{route}}")], "reqps"),
            Panel("Refused (429)", [(_rate(f"{_REQUESTS}_count", "route", 'status="429"'), "{{route}}")], "reqps"),
            Panel("Duration", _p50_p95(_REQUESTS, "route", 'route!~".*/events|.*/stream"'), "s"),
            Panel("Search by phase", _p50_p95("aegis_search_duration_seconds", "phase"), "s"),
            Panel("In flight", [("sum by (instance) (aegis_http_requests_in_flight)", "{{instance}}")]),
            Panel(
                "Language models",
                [(_rate("aegis_llm_requests_total", "model, outcome"), "{{model}} {{outcome}}")],
                "ops",
            ),
            Panel("First word of a language model", _p50_p95("aegis_llm_first_token_seconds", "model"), "s"),
            Panel(
                "Money for language models in a day",
                [("sum by (model) (increase(aegis_llm_cost_total[1d]))", "{{model}}")],
            ),
            Panel(
                "Budgets of language models",
                [("max by (model, period) (aegis_llm_budget_ratio)", "{{model}} {{period}}")],
                "percentunit",
            ),
        ],
    ),
    "ingestion": (
        "Aegis: ingestion",
        [
            Panel(
                "Records settled", [(_rate("aegis_records_total", "stage, outcome"), "{{stage}} {{outcome}}")], "wps"
            ),
            Panel("Micro-batch duration", _p50_p95("aegis_batch_duration_seconds", "stage"), "s"),
            Panel(
                "Records per micro-batch",
                [
                    (
                        f"{_rate('aegis_batch_records_sum', 'stage')} / {_rate('aegis_batch_records_count', 'stage')}",
                        "{{stage}}",
                    )
                ],
            ),
            Panel("Documents by state", [("max by (state) (aegis_documents)", "{{state}}")]),
            Panel("Oldest unfinished document", [("max(aegis_oldest_unfinished_document_seconds)", "waits")], "s"),
            Panel("Embedding, one forward pass", _p50_p95("aegis_batcher_inference_seconds", "model"), "s"),
            Panel("Waiting for the model", _p50_p95("aegis_batcher_queue_seconds", "model"), "s"),
            Panel("Queued tokens", [("sum by (model) (aegis_batcher_queued_tokens)", "{{model}}")]),
            Panel("Extraction by phase", _p50_p95("aegis_extraction_duration_seconds", "phase"), "s"),
            Panel(
                "Entities and relations found",
                [
                    ("sum(rate(aegis_extraction_entities_total[$__rate_interval]))", "entities"),
                    ("sum(rate(aegis_extraction_relations_total[$__rate_interval]))", "relations"),
                ],
                "ops",
            ),
            Panel(
                "Extraction does without",
                [(_rate("aegis_extraction_errors_total", "phase, error_type"), "{{phase}} {{error_type}}")],
                "ops",
            ),
        ],
    ),
    "stores": (
        "Aegis: stores",
        [
            Panel("Written", [(_rate("aegis_records_total", "stage", 'stage=~"index-.*"'), "{{stage}}")], "wps"),
            Panel("One write", _p50_p95("aegis_batch_duration_seconds", "stage", 'stage=~"index-.*"'), "s"),
            Panel("One read", _p50_p95("aegis_search_duration_seconds", "phase", 'phase="retrieve"'), "s"),
            Panel("Ready", [('min by (stage) (aegis_stage_ready{stage=~"index-.*"})', "{{stage}}")], kind="stat"),
            Panel("Memory of the processes", [("process_resident_memory_bytes", "{{job}} {{instance}}")], "bytes"),
            Panel(
                "CPU of the processes", [(_rate("process_cpu_seconds_total", "job, instance"), "{{instance}}")], "cores"
            ),
        ],
    ),
    "correlation": (
        "Aegis: requests and their records",
        [
            Panel(
                "From a request to the index",
                [
                    (_rate("aegis_api_published_records_total", "operation"), "published: {{operation}}"),
                    (_rate("aegis_records_total", "stage", 'outcome="delivered"'), "delivered: {{stage}}"),
                ],
                "wps",
                24,
                about="A request's X-Request-ID is the correlation id of its records and of every log line they cause: "
                "search the logs for it.",
            ),
            Panel("Retried", [(_rate("aegis_records_total", "stage", 'outcome="retried"'), "{{stage}}")], "wps"),
            Panel(
                "Dead-lettered",
                [(_rate("aegis_records_total", "stage", 'outcome="dead-lettered"'), "{{stage}}")],
                "wps",
            ),
            Panel("Dead letters to resolve", [("max by (stage) (aegis_dead_letters)", "{{stage}}")]),
            Panel("Oldest dead letter", [("max by (stage) (aegis_dead_letters_oldest_seconds)", "{{stage}}")], "s"),
            Panel("Breakers open", [("max by (stage) (aegis_breaker_open)", "{{stage}}")], kind="stat"),
            Panel("Stages ready", [("min by (stage) (aegis_stage_ready)", "{{stage}}")], kind="stat"),
        ],
    ),
    "lag": (
        "Aegis: consumer lag",
        [
            Panel(
                "Behind",
                [(f"kafka_consumergroup_group_lag_seconds{{{_OUR_GROUPS}}}", "{{consumergroup}}")],
                "s",
                about="Age of the oldest record that the group has not read.",
            ),
            Panel("Records not read", [(f"kafka_consumergroup_group_lag{{{_OUR_GROUPS}}}", "{{consumergroup}}")]),
            Panel("Drained in", [("aegis_consumergroup_drain_eta_seconds", "{{consumergroup}}")], "s"),
            Panel("Verdict", [("aegis_consumergroup_verdict == 1", "{{consumergroup}}: {{verdict}}")], kind="stat"),
            Panel(
                "By partition",
                [(f"kafka_consumergroup_lag{{{_OUR_GROUPS}}} > 0", "{{topic}} {{partition}} ({{consumergroup}})")],
                width=24,
            ),
        ],
    ),
}


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"aegis-{name}",
        "title": title,
        "tags": ["aegis"],
        "schemaVersion": _GRAFANA_SCHEMA,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}]},
        "panels": _laid_out(panels),
    }


def expressions() -> list[str]:
    """Every query of every dashboard."""
    return [query for _, panels in DASHBOARDS.values() for panel in panels for query, _ in panel.queries]


def _laid_out(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """The panels from left to right and from top to bottom."""
    placed, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _COLUMNS:
            x, y = 0, y + _HEIGHT
        placed.append(_panel(panel) | {"id": number, "gridPos": {"x": x, "y": y, "w": panel.width, "h": _HEIGHT}})
        x += panel.width
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }
