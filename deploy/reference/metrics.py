"""The page about metrics, from the very collectors that are exported."""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

import api.metrics
import deploy.model_metrics
import streams.metrics
from api.lag_metrics import Lag, Progress
from deploy import dashboards

_PARTS: Mapping[str, tuple[str, ModuleType | None]] = {
    "Stages": ("By every process that runs stages.", streams.metrics),
    "HTTP, searches, answers": ("By the API.", api.metrics),
    "Models": ("By every process that runs a model.", deploy.model_metrics),
    "Lag and progress": (
        "By the API, from the broker, for all stages and their retries. What is not known has no sample.",
        None,
    ),
}
_INTRODUCTION = """# Metrics

`GET /metrics` on the API and on the health port of a worker, in Prometheus' text format. What is
told of each process itself (`process_*`, `python_*`) is the client library's.
"""


def page(alerts: Sequence[Mapping[str, Any]]) -> str:
    """The page; each metric names the dashboards and the alerts that use it."""
    lines = [_INTRODUCTION]
    for part, (about, module) in _PARTS.items():
        lines += [f"## {part}", "", about, ""]
        for name, kind, labels, meaning in sorted(_described(module)):
            lines += [f"### `{name}`", "", f"{_kind(kind, labels)}. {meaning}", "", *_users(name, alerts)]
    return "\n".join(lines).rstrip() + "\n"


def panels_with(metrics: Sequence[str]) -> list[str]:
    """Each dashboard with its panels that show one of these metrics."""
    found = []
    for title, panels in dashboards.DASHBOARDS.values():
        shown = [one.title for one in panels if any(_uses(query, name) for query, _ in one.queries for name in metrics)]
        if shown:
            found.append(f"{title.removeprefix('Aegis: ')} ({', '.join(shown)})")
    return found


def used_by(expression: str) -> list[str]:
    """The metrics that an expression of Prometheus reads."""
    names = [name for _, module in _PARTS.values() for name, *_ in _described(module)]
    return [name for name in names if _uses(expression, name)]


def _described(module: ModuleType | None) -> Iterator[tuple[str, str, Sequence[str], str]]:
    """Name, type, labels and meaning."""
    if module is None:
        for family in (*Lag([]).collect(), *Progress({}, None, []).collect()):
            yield family.name, family.type, family._labelnames, family.documentation
        return
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (described,) = metric.describe()
            name = described.name + "_total" * (described.type == "counter")
            yield name, described.type, metric._labelnames, described.documentation


def _kind(kind: str, labels: Sequence[str]) -> str:
    return " by ".join(filter(None, (kind.capitalize(), ", ".join(f"`{label}`" for label in labels))))


def _users(name: str, alerts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who shows it, and who fires on it."""
    fired = [f"[{one['alert']}](alerts.md#{one['alert'].lower()})" for one in alerts if _uses(one["expr"], name)]
    listed = {"Dashboards": panels_with([name]), "Alerts": fired}
    return [line for what, users in listed.items() if users for line in (f"{what}: {', '.join(users)}.", "")]


def _uses(expression: str, name: str) -> bool:
    return bool(re.search(rf"\b{name}(_bucket|_count|_sum)?\b", expression))
