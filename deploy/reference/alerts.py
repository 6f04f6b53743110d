"""The page about alerts, from the rules that Prometheus evaluates."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy.reference import metrics, shapes

RULES = Path(__file__).parents[1] / "prometheus" / "alerts.yaml"
RUNBOOK = Path(__file__).parents[2] / "docs" / "operations.md"
_INTRODUCTION = """# Alerts

The rules are in `deploy/prometheus/alerts.yaml`; compose and the chart bring them along. Each leads to the section of
the [runbook](../operations.md#runbook) that mends it. `warning` can wait for the morning, `critical` cannot.
"""


def rules() -> list[dict[str, Any]]:
    """Every alert as Prometheus reads it."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def page() -> str:
    """The page."""
    overview = shapes.table(
        ["alert", "severity", "runbook"],
        [(f"[{one['alert']}](#{one['alert'].lower()})", one["labels"]["severity"], _runbook(one)) for one in rules()],
    )
    return "\n".join([_INTRODUCTION, *overview, *(line for one in rules() for line in _alert(one))]).rstrip() + "\n"


def _alert(rule: Mapping[str, Any]) -> list[str]:
    seen = metrics.panels_with(metrics.used_by(rule["expr"]))
    return [
        f"## {rule['alert']}",
        "",
        *shapes.paragraphs(rule["annotations"].get("description", "")),
        *shapes.table(
            ["", ""],
            [
                ("severity", rule["labels"]["severity"]),
                ("fires", f"after {rule['for']}" if "for" in rule else "at once"),
                ("says", f"`{rule['annotations']['summary']}`"),
                ("dashboards", "; ".join(seen) or "none: the process and its log"),
                ("mend it", _runbook(rule)),
            ],
        ),
        "```promql",
        rule["expr"].strip(),
        "```",
        "",
    ]


def _runbook(rule: Mapping[str, Any]) -> str:
    anchor = rule["annotations"]["runbook"].partition("#")[2]
    return f"[{_sections()[anchor]}](../operations.md#{anchor})"


@cache
def _sections() -> dict[str, str]:
    """The headings of docs/operations.md by their anchors."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    return {shapes.anchor(heading): heading for heading in headings}
