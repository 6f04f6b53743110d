"""What `aegis rollout` makes of a Helm release, each state of it rendered by the real helm."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.delivery.kubernetes import CHART, ApiTracks, LiveAlreadyError, Release, StageWorkers
from deploy.delivery.prometheus import Prometheus
from deploy.delivery.rollout import Plan, RolledBackError, Smoke, roll_out, roll_workers
from deploy.delivery.smoke import smoke
from tests.api_server import Stack, serving
from tests.instant_system import instant
from tests.programs import go_program
from tests.test_deployment import HELM

ROOT = Path(__file__).parents[1]
GATEWAY = "--set-string=api.gateway.name=web\n--set=api.gateway.enabled=true"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def silent(line: str) -> None:
    pass


pytestmark = pytest.mark.timeout(1800)  # the first test here may build helm


State = dict[tuple[str, str], Any]


class Cluster:
    """A release in a folder, with an API that is well beside it."""

    def __init__(self, folder: Path, api: Stack, monkeypatch: pytest.MonkeyPatch, *, sets: str) -> None:
        self._folder = folder
        self.release = Release("aegis", "default", f"http://127.0.0.1:{api.port}")
        for name in ("helm", "kubectl"):
            program = folder / name
            program.write_text(f"#!{sys.executable}\n{(ROOT / 'tests' / 'cluster_programs.py').read_text()}")
            program.chmod(0o755)
        (folder / "sets-00").write_text(sets)
        self._helm = go_program("helm", HELM)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        monkeypatch.setenv("CLUSTER", str(folder))
        monkeypatch.setenv("CANDIDATE", str(api.port))
        monkeypatch.setenv("CHART_VALUES", str(CHART / "values.yaml"))

    def bring(self, version: str, *steps: int, observe: Any = None, smoke: Smoke = silent) -> None:
        tracks = ApiTracks.of(self.release, version)
        roll_out(tracks, Plan(steps=steps, interval=0.1, settle=0), smoke=smoke, observe=observe, say=silent)

    def roll(self, version: str) -> None:
        roll_workers(StageWorkers(self.release), version, smoke=lambda: None, say=silent)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self._folder / "calls").read_text().splitlines()]

    def states(self, *which: int) -> list[State]:
        """The objects after each change, or after some, by kind and name, as the real helm renders them."""
        changes = sorted(self._folder.glob("sets-*"))[1:]
        return [self._rendered(changes[one].read_text().splitlines()) for one in which or range(len(changes))]

    def _rendered(self, sets: list[str]) -> State:
        command = [self._helm, "template", "aegis", str(CHART), "--kube-version", "1.31.0", *sets]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {
            (one["kind"], one["metadata"]["name"]): one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one
        }


@pytest.fixture(scope="module")
def api() -> Iterator[Stack]:
    with serving(change=instant) as stack:
        yield stack


@pytest.fixture
def cluster(api: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, api, monkeypatch, sets=GATEWAY)


@pytest.fixture
def without_gateway(api: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, api, monkeypatch, sets="")


def test_a_canary_changes_shares_and_then_the_tracks_change_places(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "rollout", "api", "v2", "--url", cluster.release.url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    states = cluster.states()
    assert [shares(state) for state in states] == [
        {"blue": 100, "green": 0},
        {"blue": 90, "green": 10},
        {"blue": 50, "green": 50},
        {"green": 100, "blue": 0},
    ]
    assert [service(state) for state in states] == ["blue"] * 3 + ["green"]
    assert {(image(state, "blue"), image(state, "green")) for state in states} == {("light", "v2")}
    assert same_pods(states)
    calls = [call for call in cluster.calls if call[0] == "kubectl"]
    assert ["kubectl", "--namespace", "default", "scale", "deployment/aegis-api-green", "--replicas=7"] in calls
    assert calls[-1][3:] == ["port-forward", "service/aegis-api-green", ":80"]
    upgrades = [call for call in cluster.calls if call[3] == "upgrade"]
    assert all("--reset-then-reuse-values" in call for call in upgrades)
    assert ["--wait" in call for call in upgrades] == [True, False, False, False]


def test_a_cancelled_rollout_lets_helm_end_and_takes_its_version_back(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "candidate.weight=10")
    command = [sys.executable, "-m", "deploy.cli", "rollout", "api", "v2", "--url", cluster.release.url]
    rolling = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "waiting").exists)
    rolling.terminate()
    assert "being taken back" in rolling.communicate(timeout=200)[1]
    assert rolling.returncode != 0
    (last,) = cluster.states(-1)
    assert (shares(last), service(last), image(last, "blue")) == ({"blue": 100}, "blue", "light")


def test_the_version_before_stands_by_takes_over_again_and_is_stopped_at_the_end(without_gateway: Cluster) -> None:
    without_gateway.bring("v2", 100)
    without_gateway.bring("light", 100)
    without_gateway.release.retire()
    *states, last = without_gateway.states()
    assert [service(state) for state in states] == ["blue", "green", "green", "blue"]
    assert same_pods(states)
    assert {name for kind, name in last if kind == "Deployment"} == {"aegis-api-blue"}


def test_whatever_goes_wrong_brings_everything_back(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RolledBackError, match="refused"):
        cluster.bring("v2", 10, 100, observe=Prometheus("http://127.0.0.1:1").observed)
    monkeypatch.setenv("REFUSED", "api.live=green")
    with pytest.raises(RolledBackError, match="timed out waiting"):
        cluster.bring("v3", 100)
    monkeypatch.setenv("CANDIDATE", "1")
    with pytest.raises(RolledBackError, match="ready: "):
        cluster.bring("v4", 100, smoke=lambda url: smoke(url, within=10).require())
    (last,) = cluster.states(-1)
    assert (shares(last), service(last), image(last, "blue")) == ({"blue": 100}, "blue", "light")


def test_shares_need_a_gateway_and_a_version_that_is_not_live(without_gateway: Cluster) -> None:
    with pytest.raises(RolledBackError, match=r"needs api\.gateway\.enabled"):
        without_gateway.bring("v2", 10, 100)
    with pytest.raises(LiveAlreadyError, match="is live already"):
        without_gateway.bring("light", 100)


def test_workers_roll_one_stage_at_a_time_from_the_end_of_the_stream(cluster: Cluster) -> None:
    cluster.roll("v2")
    new = [[name for name, tag in workers(state).items() if tag == "v2"] for state in cluster.states()]
    order = ["index-graph", "index-vectors", "extract", "embed", "chunk"]
    assert new == [sorted(order[:place]) for place in range(len(order) + 1)]
    (first,) = cluster.states(0)
    assert [tag_of(one) for (kind, _), one in first.items() if kind == "Job"] == ["v2"]
    assert image(first, "blue") == "light"


def test_a_worker_that_does_not_come_up_brings_the_others_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSED", "workers.extract.tag=v2")
    with pytest.raises(RolledBackError, match="timed out waiting"):
        cluster.roll("v2")
    (last,) = cluster.states(-1)
    assert set(workers(last).values()) == {"light"}
    forth, back = ["index-graph", "index-vectors", "extract"], ["extract", "index-vectors", "index-graph"]
    rolled = [call[-1] for call in cluster.calls if call[3] == "upgrade"][1:]
    assert rolled == [f"workers.{name}.tag=v2" for name in forth] + [f"workers.{name}.tag=light" for name in back]


def same_pods(states: list[State]) -> bool:
    """Whether no state makes a pod of another one anew."""
    made = [
        {name: one["spec"]["template"] for (kind, name), one in state.items() if kind == "Deployment"}
        for state in states
    ]
    return all(one == made[0] for one in made)


def tag_of(one: dict[str, Any]) -> str:
    name: str = one["spec"]["template"]["spec"]["containers"][0]["image"]
    return name.rpartition(":")[2]


def image(state: State, track: str) -> str:
    return tag_of(state["Deployment", f"aegis-api-{track}"])


def workers(state: State) -> dict[str, str]:
    return {
        name.removeprefix("aegis-"): tag_of(one) for (kind, name), one in sorted(state.items()) if kind == "StatefulSet"
    }


def service(state: State) -> str:
    track: str = state["Service", "aegis-api"]["spec"]["selector"]["track"]
    return track


def shares(state: State) -> dict[str, int]:
    route = state["HTTPRoute", "aegis-api"]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert (route["spec"]["parentRefs"], route["spec"]["hostnames"]) == ([{"name": "web"}], ["aegis.example"])
    (rule,) = route["spec"]["rules"]
    assert all(("Service", one["name"]) in state for one in rule["backendRefs"])
    return {one["name"].removeprefix("aegis-api-"): one["weight"] for one in rule["backendRefs"]}
