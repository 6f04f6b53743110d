"""Image, compose and chart: what can be said of them without a cluster."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import deploy
from schemas.records import STAGES
from schemas.settings import FLAGS, variable_names
from schemas.topics import SOURCES, group_of
from tests.programs import go_program

DEPLOY = Path(next(iter(deploy.__path__)))
CHART = DEPLOY / "helm" / "aegis-streams"
HELM = "helm.sh/helm/v3/cmd/helm@v3.19.2"
KUBERNETES = "1.31"  # a helm that go built believes in 1.20
VALUES = [[], ["values-staging.yaml"], ["values-production.yaml"], ["values-production.yaml", "values-gpu.yaml"]]
_COMPONENT = "app.kubernetes.io/component"
_OURS = re.compile(r"\bAEGIS_[A-Z0-9_]+")

pytestmark = pytest.mark.timeout(1800)  # the first test here may build helm


def _helm(*arguments: object, values: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    files = [part for name in values or [] for part in ("--values", str(CHART / name))]
    return subprocess.run(
        [go_program("helm", HELM), *map(str, arguments), str(CHART), "--kube-version", f"{KUBERNETES}.0", *files],
        capture_output=True,
        text=True,
        check=False,
    )


def _rendered(values: list[str], *arguments: str) -> list[dict[str, Any]]:
    done = _helm("template", "aegis", *arguments, values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in documents if one["kind"] == kind}


def _pods(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield document["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_the_chart_is_clean_and_fits_kubernetes(values: list[str]) -> None:
    done = _helm("lint", "--strict", values=values)
    assert done.returncode == 0, done.stdout
    more = ["api.ingress.enabled=true", "secrets.AEGIS_GRAPH__PASSWORD=x", "api.candidate.tag=v2"]
    documents = _rendered(values, *(part for one in more for part in ("--set", one)))
    ours = [one for one in documents if one["apiVersion"].split("/")[0] not in ("keda.sh", "monitoring.coreos.com")]
    assert len(ours) > 20
    for document in ours:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_every_stage_runs_once_with_little_power(values: list[str]) -> None:
    documents = _rendered(values)
    stages = [
        stage
        for worker in _kind(documents, "StatefulSet").values()
        for stage in worker["spec"]["template"]["spec"]["containers"][0]["args"][2].split(",")
    ]
    assert sorted(stages) == sorted(STAGES)
    for pod in _pods(documents):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["terminationGracePeriodSeconds"] >= 60
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_scaling_follows_the_lag_of_the_groups_there_are() -> None:
    documents = _rendered(["values-production.yaml"])
    scaled = _kind(documents, "ScaledObject")
    settings = _kind(documents, "ConfigMap")["aegis-settings"]["data"]
    assert len(scaled) == len(_kind(documents, "StatefulSet"))
    triggers = [trigger["metadata"] for one in scaled.values() for trigger in one["spec"]["triggers"]]
    assert {(one["consumerGroup"], one["topic"]) for one in triggers} == {
        (group_of(stage), SOURCES[stage].name) for stage in STAGES
    }
    assert all(one["excludePersistentLag"] == one["limitToPartitionsWithLag"] == "true" for one in triggers)
    partitions = int(settings["AEGIS_KAFKA__PARTITIONS"])
    assert all(one["spec"]["maxReplicaCount"] <= partitions for one in scaled.values())
    assert not any("replicas" in one["spec"] for one in _kind(documents, "StatefulSet").values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("workers.embed.maxReplicas=40", "above the 12 partitions"),
        ("settings.KAFKA=x", "KAFKA"),
        ("workers.embed.stages=embedd", "stages"),
        ("terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"),
        ("api.live=red", "/api/live"),
        ("api.candidate.weight=101", "weight"),
        ("api.gateway.enabled=true", "which Gateway?"),
    ],
)
def test_wrong_values_are_refused(wrong: str, said: str) -> None:
    done = _helm("template", "aegis", "--set", wrong)
    assert done.returncode != 0
    assert said in done.stderr


def test_alerts_and_dashboards_come_with_the_chart() -> None:
    documents = _rendered(["values-production.yaml"])
    (rule,) = _kind(documents, "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    shipped = _kind(documents, "ConfigMap")["aegis-dashboards"]["data"]
    assert shipped == {path.name: path.read_text().rstrip("\n") for path in (DEPLOY / "grafana").glob("*.json")}
    assert {
        labels["app.kubernetes.io/component"]
        for one in _kind(documents, "ServiceMonitor").values()
        for labels in [one["spec"]["selector"]["matchLabels"]]
    } == {"api", "worker"}


def test_prometheus_sees_each_pod_once_with_its_track_and_with_a_key() -> None:
    documents = _rendered(["values-production.yaml"], "--set", "monitoring.keySecret.name=scraper,api.candidate.tag=v2")
    seen = [one for one in _kind(documents, "Service").values() if one["metadata"]["labels"].get(_COMPONENT) == "api"]
    assert sorted(one["spec"]["selector"]["track"] for one in seen) == ["blue", "green"]
    monitor = _kind(documents, "ServiceMonitor")["aegis-api"]["spec"]
    assert monitor["podTargetLabels"] == ["track"]
    assert monitor["endpoints"][0]["authorization"] == {"credentials": {"name": "scraper", "key": "token"}}
    (worker,) = _kind(documents, "ServiceMonitor")["aegis-worker"]["spec"]["endpoints"]
    assert "authorization" not in worker


def test_prometheus_of_compose_has_a_key_for_the_api_and_for_nothing_else() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    (secret,) = compose["services"]["prometheus"]["secrets"]
    assert f"{compose['secrets'][secret]['environment']}=" in (DEPLOY / "compose" / "example.env").read_text()
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    files = {job["job_name"]: job["authorization"]["credentials_file"] for job in scraped if "authorization" in job}
    assert files == {"aegis-api": f"/run/secrets/{secret}"}


def test_certificates_for_kafka_are_files_in_every_pod_and_keda_has_its_own() -> None:
    given = ["--set", "kafkaCertificates=c", "--set", "keda.authentication=k"]
    documents = _rendered(["values-production.yaml"], *given)
    for pod in _pods(documents):
        assert {"name": "kafka", "secret": {"secretName": "c", "defaultMode": 0o440}} in pod["volumes"]
        assert "/kafka" in [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
    triggers = [one for scaled in _kind(documents, "ScaledObject").values() for one in scaled["spec"]["triggers"]]
    assert {trigger["authenticationRef"]["name"] for trigger in triggers} == {"k"}
    plain = [one for one in _rendered(["values-production.yaml"]) if one["kind"] != "ConfigMap"]
    assert "authenticationRef" not in str(plain)
    assert "mountPath': '/kafka'" not in str(plain)


def test_compose_runs_every_stage_with_settings_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    commands = [service.get("command", []) for service in compose["services"].values()]
    stages = [stage for command in commands if command[:2] == ["worker", "--stage"] for stage in command[2].split(",")]
    assert sorted(stages) == sorted(STAGES)
    for service in compose["services"].values():
        assert ":" in service["image"] and not service["image"].endswith(":latest")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / "compose" / source).exists(), source
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    names = {name for job in scraped for of in job.get("dns_sd_configs", []) for name in of["names"]}
    assert names <= set(compose["services"])


@pytest.mark.parametrize("path", ["compose/compose.yaml", "docker/Dockerfile", "helm/aegis-streams/values.yaml"])
def test_only_settings_that_exist_are_set(path: str) -> None:
    named = set(_OURS.findall((DEPLOY / path).read_text()))
    assert named
    assert named - {*variable_names(), *FLAGS, "AEGIS_"} == set()


def test_the_image_runs_as_nobody_from_locked_packages() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    ignored = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()]
    assert all(f"!{name}" in ignored for name in copied if name != ".")
