"""A real Prometheus over the shipped configuration and alerts, for which a minute lasts a second."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

import deploy
from deploy.local.broker import free_port
from deploy.local.supervisor import Child, command_child
from tests.programs import program
from tests.waiting import until

SHIPPED = Path(next(iter(deploy.__path__))) / "prometheus"
_SCRAPE = "2s"  # instead of 15: every range and `for` of an alert holds some samples though it is 60 times as short


@dataclass(frozen=True)
class Prometheus:
    """A started server."""

    http: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that the expression gives now."""
        response = self.http.get("/api/v1/query", params={"query": expression})
        response.raise_for_status()
        result: list[dict[str, Any]] = response.json()["data"]["result"]
        return result

    def alerts(self, *, since: str) -> set[tuple[str, str]]:
        """Alerts that fired in that time, each with the stage or consumer group that it was about."""
        fired = [one["metric"] for one in self.query(f'count_over_time(ALERTS{{alertstate="firing"}}[{since}])')]
        return {(one["alertname"], one.get("stage") or one.get("consumergroup", "")) for one in fired}


@contextmanager
def scraping(folder: Path, targets: Mapping[str, Sequence[str]], *, key: str) -> Iterator[Prometheus]:
    """Prometheus, which shows ``key`` where the shipped configuration shows one; ``targets`` by job."""
    (folder / "alerts.yaml").write_text(hurried((SHIPPED / "alerts.yaml").read_text()))
    (folder / "key").write_text(key)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(targets, folder / "key")))
    child = _spawned(folder, port := free_port())
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            until(lambda: _is_ready(http), pause=0.2, what=child.last_words)
            yield Prometheus(http)
    finally:
        child.stop()


def hurried(rules: str) -> str:
    """Alert rules for which a minute lasts a second: ranges, ``for``, and limits of 100 seconds or more."""
    shorter = re.sub(r"\b(\d+)m\b", r"\1s", rules)
    return re.sub(r" > (\d{3,})$", lambda limit: f" > {int(limit[1]) // 60}", shorter, flags=re.MULTILINE)


def _configuration(targets: Mapping[str, Sequence[str]], key: Path) -> dict[str, Any]:
    shipped: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yaml").read_text())
    shipped["global"] = {"scrape_interval": _SCRAPE, "evaluation_interval": "1s"}
    for job in shipped["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(key)
    return shipped


def _spawned(folder: Path, port: int) -> Child:
    command = [
        program("prometheus", "prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    child = command_child("prometheus", command, folder / "prometheus.log", {})
    child.start()
    return child


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").is_success
    except httpx.HTTPError:
        return False
