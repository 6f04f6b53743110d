"""Rollouts of real API processes behind a weighted proxy, judged by a real Prometheus."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from deploy.delivery.prometheus import Observed, Prometheus
from deploy.delivery.rollout import Plan, RolledBackError, roll_out, roll_workers
from deploy.local.broker import free_port
from tests.programs import program
from tests.weighted_proxy import WeightedProxy, proxying

NOTHING = Observed(requests=0, errors=0, p95=0)
PLAN = Plan(hold=1, interval=0.5, settle=0, min_requests=12, patience=60, max_p95=10)
_CONFIGURATION = """
global: {scrape_interval: 250ms, scrape_timeout: 250ms}
scrape_configs:
  - job_name: aegis-api
    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]
"""


class Api:
    """A version that runs."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-m", "tests.rollout_api", kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.communicate(timeout=60)


@dataclass
class Processes:
    """`deploy.delivery.rollout.Tracks` on this machine: a process for each version, a proxy before them, Prometheus."""

    live: Api
    proxy: WeightedProxy
    prometheus: Prometheus
    targets: Path
    version: str = ""
    new: Api | None = None
    shifts: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"

    def deploy(self) -> str:
        self.shifts = []
        self.new = Api(self.version)
        self.proxy.candidate = self.new.port
        group = {"targets": [f"127.0.0.1:{self.new.port}"], "labels": {"track": self.version}}
        self.targets.write_text(json.dumps([group]))
        return self.version

    def candidate(self) -> AbstractContextManager[str]:
        assert self.new is not None
        return nullcontext(self.new.url)

    def shift(self, percent: int) -> None:
        self.shifts.append(percent)
        self.proxy.percent = percent

    def retire(self) -> None:
        assert self.new is not None
        out = self.new
        if self.proxy.percent:
            out, self.live = self.live, self.new
            self.proxy.live, self.proxy.percent = self.new.port, 0
        out.stop()


class Users:
    """Search without a pause, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.statuses: list[int] = []
        self._threads = [threading.Thread(target=self._search) for _ in range(4)]

    def __enter__(self) -> "Users":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[int]:
        return [status for status in self.statuses if status != 200]

    def until(self, answers: int) -> None:
        """Wait for that many."""
        while len(self.statuses) < answers:
            time.sleep(0.01)

    def _search(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False, limits=limits) as http:
            while not self._stop.wait(0.03):
                try:
                    self.statuses.append(http.post("/api/v1/search", json={"query": "q"}).status_code)
                except httpx.TransportError:
                    self.statuses.append(0)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A live version, and Prometheus that looks at the next one."""
    folder = tmp_path_factory.mktemp("rollout")
    (folder / "prometheus.yaml").write_text(_CONFIGURATION)
    (folder / "targets.json").write_text("[]")
    address = f"127.0.0.1:{free_port()}"
    options = ["--config.file=prometheus.yaml", f"--web.listen-address={address}", "--storage.tsdb.path=data"]
    with (folder / "prometheus.log").open("w") as output:
        watching = subprocess.Popen([program("prometheus", "prometheus"), *options], cwd=folder, stderr=output)
    live = Api("well")
    try:
        with proxying(live.port) as proxy:
            yield (started := Processes(live, proxy, Prometheus(f"http://{address}"), folder / "targets.json"))
    finally:
        watching.terminate()
        watching.wait(60)
    started.live.stop()


def smoke(url: str) -> None:
    httpx.post(f"{url}/api/v1/search", json={"query": "q"}, trust_env=False).raise_for_status()


def silent(line: str) -> None:
    pass


@pytest.mark.timeout(1200)  # the first of them may install Prometheus
def test_a_version_that_is_well_gets_all_requests_and_none_fails(processes: Processes) -> None:
    said: list[str] = []
    old, processes.version = processes.live, "well"
    with Users(processes.url) as users:
        roll_out(processes, PLAN, smoke=smoke, observe=processes.prometheus.observed, say=said.append)
        assert (processes.shifts, processes.proxy.percent) == ([10, 50, 100], 100)
        processes.retire()
        users.until(len(users.statuses) + 20)
    assert not old.runs
    assert 0 < processes.prometheus.observed("well", 30).p95 <= 10
    assert users.failed == []
    assert len(users.statuses) > 12 / 0.1 + 12 / 0.5 + 20
    assert [line for line in said if line.endswith("of the requests")] == [
        f"well: {percent} % of the requests" for percent in (10, 50, 100)
    ]


@pytest.mark.timeout(1200)
def test_a_version_that_is_not_well_under_load_is_taken_back(processes: Processes) -> None:
    processes.version = "failing"
    with Users(processes.url) as users:
        with pytest.raises(RolledBackError, match="% errors, 95 %"):
            roll_out(processes, PLAN, smoke=smoke, observe=processes.prometheus.observed, say=silent)
        assert processes.shifts == [10, 0]
        assert processes.new is not None
        assert (processes.new.runs, processes.live.runs) == (False, True)
        before = len(users.statuses)
        users.until(before + 20)
    assert set(users.statuses[before:]) == {200}
    assert set(users.failed) == {503}


class Scripted:
    """`Tracks` and `Workers` that note what is done to them."""

    version, url = "v2", "http://live"

    def __init__(self) -> None:
        self.done: list[str] = []

    def deploy(self) -> str:
        self.done.append("deploy")
        return "green"

    def candidate(self) -> AbstractContextManager[str]:
        return nullcontext("http://candidate")

    def shift(self, percent: int) -> None:
        self.done.append(f"shift {percent}")

    def retire(self) -> None:
        self.done.append("retire")

    def versions(self) -> dict[str, str]:
        return {"index": "v1", "embed": "v0", "chunk": "v1"}

    def prepare(self, version: str) -> None:
        self.done.append(f"prepare {version}")

    def roll(self, name: str, version: str) -> None:
        self.done.append(f"{name} {version}")


def broken(url: str) -> None:
    raise RuntimeError(f"{url} is silent")


def interrupted(url: str) -> None:
    raise KeyboardInterrupt


def test_what_fails_its_smoke_test_gets_no_request() -> None:
    tracks = Scripted()
    with pytest.raises(RolledBackError, match="http://candidate is silent"):
        roll_out(tracks, PLAN, smoke=broken, observe=None, say=silent)
    assert tracks.done == ["deploy", "shift 0", "retire"]


def test_a_cancelled_rollout_is_taken_back_too() -> None:
    tracks = Scripted()
    with pytest.raises(KeyboardInterrupt):
        roll_out(tracks, PLAN, smoke=interrupted, observe=None, say=silent)
    assert tracks.done == ["deploy", "shift 0", "retire"]


def test_a_slow_version_is_taken_back() -> None:
    tracks, slow = Scripted(), Observed(requests=500, errors=0.0, p95=1.01)
    with pytest.raises(RolledBackError, match=r"95 % within 1\.010 s; allowed are 1\.00% and 1 s"):
        roll_out(
            tracks, Plan(interval=0, settle=0), smoke=lambda url: None, observe=lambda track, seconds: slow, say=silent
        )
    assert tracks.done == ["deploy", "shift 10", "shift 0", "retire"]


def test_without_requests_there_is_no_verdict() -> None:
    tracks = Scripted()
    plan = Plan(hold=0.1, interval=0.05, patience=0.2, settle=0)
    with pytest.raises(RolledBackError, match="fewer than 100 requests"):
        roll_out(tracks, plan, smoke=lambda url: None, observe=lambda track, seconds: NOTHING, say=silent)
    assert tracks.done == ["deploy", "shift 10", "shift 0", "retire"]


def test_workers_follow_from_the_end_of_the_stream_and_go_back_from_its_beginning() -> None:
    workers, smokes = Scripted(), iter([None, None, RuntimeError("nothing arrives")])

    def smoke() -> None:
        if error := next(smokes):
            raise error

    with pytest.raises(RolledBackError, match="nothing arrives"):
        roll_workers(workers, "v2", smoke=smoke, say=silent)
    forth = ["prepare v2", "index v2", "embed v2", "chunk v2"]
    assert workers.done == [*forth, "chunk v1", "embed v0", "index v1"]


def test_a_version_of_before_is_taken_by_who_writes_first() -> None:
    workers = Scripted()
    roll_workers(workers, "v0", smoke=lambda: None, say=silent, back=True)
    assert workers.done == ["prepare v0", "chunk v0", "embed v0", "index v0"]


@pytest.mark.parametrize("steps", [(), (0, 100), (50, 10, 100), (10, 50)])
def test_steps_lead_to_all_requests(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="grow to 100"):
        Plan(steps=steps)
