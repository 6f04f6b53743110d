"""Alerts, dashboards: checked by Prometheus' own tool, and against what is really exported."""

import re
import subprocess
from pathlib import Path

import prometheus_client
import prometheus_client.metrics
import pytest
import yaml

import api.metrics
import deploy.model_metrics
import streams.metrics
from deploy import dashboards
from tests.api_server import serving
from tests.programs import program

DEPLOY = Path(dashboards.__file__).parent
RULES = DEPLOY / "prometheus" / "alerts.yaml"
_NAME = re.compile(r"\b((?:aegis|kafka|process)_\w+)")
_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}


def _promtool(*arguments: object) -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(1200)  # the first of them may install Prometheus
def test_rules_and_configuration_are_valid() -> None:
    _promtool("check", "rules", RULES)
    _promtool("check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yaml")  # the key is not there


@pytest.mark.timeout(1200)
def test_every_alert_fires_on_what_it_is_for_and_on_nothing_else() -> None:
    _promtool("test", "rules", RULES.with_name("alerts_test.yaml"))
    tests = yaml.safe_load(RULES.with_name("alerts_test.yaml").read_text())["tests"]
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    quiet, *fire = ({one["alertname"] for one in test["alert_rule_test"]} for test in tests)
    assert quiet == alerts
    assert set().union(*fire) == alerts


def test_every_metric_of_dashboards_and_alerts_is_exported() -> None:
    with serving() as stack:
        stack.status.report("waits", 1, chunk="chunked")
        stack.http.post("/api/v1/search", json={"query": "q"})
        exported = set(re.findall(r"^# TYPE (\w+)", stack.http.get("/metrics").text, re.MULTILINE)) | _PROCESS
    for module in (streams.metrics, api.metrics, deploy.model_metrics):
        for collector in vars(module).values():
            if isinstance(collector, prometheus_client.metrics.MetricWrapperBase):
                described = next(iter(collector.describe()))
                exported.add(described.name + "_total" * (described.type == "counter"))
    wanted = set(_NAME.findall(" ".join([*dashboards.expressions(), RULES.read_text()])))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in wanted} - exported == set()
    assert len(wanted) > 20


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_every_query_of_a_dashboard_is_valid(name: str, tmp_path: Path) -> None:
    queries = [target["expr"] for panel in dashboards.dashboard(name)["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"q:{place}", "expr": query.replace("$__rate_interval", "1m")} for place, query in enumerate(queries)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    _promtool("check", "rules", tmp_path / "rules.yaml")
    boxes = [panel["gridPos"] for panel in dashboards.dashboard(name)["panels"]]
    assert len({(box["x"], box["y"]) for box in boxes}) == len(boxes)
    assert all(box["x"] + box["w"] <= 24 for box in boxes)


def test_every_alert_says_what_it_means() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    wanted = {"summary", "description", "runbook"}
    assert [rule["alert"] for rule in rules if rule["annotations"].keys() != wanted] == []


def test_every_runbook_exists() -> None:
    headings = re.findall(r"^#+ (.+)$", (DEPLOY.parent / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    runbooks = {
        rule["annotations"]["runbook"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
    }
    assert {link.partition("#")[2] for link in runbooks} - anchors == set()
    assert all(link.startswith("docs/operations.md#") for link in runbooks)
