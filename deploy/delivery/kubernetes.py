"""A release of the chart, changed by helm and looked at by kubectl; its values say which version is where."""

import json
import re
import subprocess  # nosec B404  # helm and kubectl, with arguments of ours
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.records import STAGES

CHART = Path(__file__).parents[1] / "helm" / "aegis-streams"
_READY = ("--wait",)
_OTHER = {"blue": "green", "green": "blue"}
_FORWARDING = re.compile(r"127\.0\.0\.1:(\d+) ->")


class ClusterError(RuntimeError):
    """helm or kubectl failed, or the release does not allow what was asked; the message says which and why."""


class LiveAlreadyError(ClusterError):
    """The version has all requests."""


@dataclass(frozen=True)
class Release:
    """An installed release; ``timeout`` in Kubernetes' notation, for each change to take hold."""

    name: str
    namespace: str
    url: str
    timeout: str = "10m"
    chart: Path = CHART

    def values(self) -> dict[str, Any]:
        """The chart's defaults with what this release sets."""
        values: dict[str, Any] = json.loads(self.helm("get", "values", self.name, "--all", "--output", "json"))
        return values

    def change(self, *values: str, wait: Sequence[str] = ()) -> None:
        """Set values (``path=value``, texts and weights), keep the others, and ``wait`` for what helm's options say."""
        sets = [part for value in values for part in ("--set" if ".weight=" in value else "--set-string", value)]
        keep = ["--reset-then-reuse-values", "--timeout", self.timeout]
        self.helm("upgrade", self.name, str(self.chart), *keep, *wait, *sets)

    def helm(self, *arguments: str) -> str:
        """What helm prints."""
        return _run(["helm", "--namespace", self.namespace, *arguments])

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints."""
        return _run(["kubectl", "--namespace", self.namespace, *arguments])

    def retire(self) -> None:
        """Give the live version of the API all requests, and stop the other one."""
        self.change("api.candidate.tag=", "api.candidate.weight=0")


@dataclass(frozen=True)
class ApiTracks:
    """`deploy.delivery.rollout.Tracks`: ``old`` on the track ``live``, ``version`` on the other one."""

    release: Release
    version: str
    old: str
    live: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, release: Release, version: str) -> "ApiTracks":
        """As the release is now.

        Raises:
            LiveAlreadyError: There is nothing to bring.
        """
        values = release.values()
        old = values["api"]["tag"] or values["image"]["tag"]
        if version == old:
            raise LiveAlreadyError(f"{version} is live already; `aegis rollout finish` stops what runs beside it")
        return cls(release, version, old, values["api"]["live"], values["api"])

    @property
    def url(self) -> str:
        """As the release's."""
        return self.release.url

    def deploy(self) -> str:
        """In every replica that the live track has."""
        self.shift(0, wait=_READY)
        track = _OTHER[self.live]
        if self.values["autoscaling"]["enabled"]:  # as many as carry the requests now: all of them may come at once
            self.release.kubectl("scale", self._deployment(track), f"--replicas={self._replicas()}")
            self.release.kubectl("rollout", "status", self._deployment(track), f"--timeout={self.release.timeout}")
        return track

    @contextmanager
    def candidate(self) -> Iterator[str]:
        """Through a port that kubectl forwards from here."""
        service = f"service/{self.release.name}-api-{_OTHER[self.live]}"
        command = ["kubectl", "--namespace", self.release.namespace, "port-forward", service]
        forward = subprocess.Popen(  # nosec B603  # a list, no shell
            [*command, f":{self.values['service']['port']}"], stdout=subprocess.PIPE, text=True
        )
        try:
            line = forward.stdout.readline() if forward.stdout else ""
            if not (found := _FORWARDING.search(line)):
                raise ClusterError(f"kubectl forwards no port to {service}: {line.strip() or 'see above'}")
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            forward.terminate()
            forward.wait()

    def shift(self, percent: int, *, wait: Sequence[str] = ()) -> None:
        """At 100 the tracks change places: whoever asks the Service, or the gateway, gets the new version."""
        if 0 < percent < 100 and not self.values["gateway"]["enabled"]:
            raise ClusterError(f"{percent} % needs api.gateway.enabled; without it, --steps 100 switches the Service")
        live, tag, beside = self.live, self.old, self.version
        if percent == 100:
            live, tag, beside, percent = _OTHER[live], beside, tag, 0
        beside_it = (f"api.candidate.tag={beside}", f"api.candidate.weight={percent}")
        self.release.change(f"api.live={live}", f"api.tag={tag}", *beside_it, wait=wait)

    def retire(self) -> None:
        """As the release's."""
        self.release.retire()

    def _deployment(self, track: str) -> str:
        return f"deployment/{self.release.name}-api-{track}"

    def _replicas(self) -> str:
        return self.release.kubectl("get", self._deployment(self.live), "--output", "jsonpath={.spec.replicas}")


@dataclass(frozen=True)
class StageWorkers:
    """`deploy.delivery.rollout.Workers`: a StatefulSet each; its pods keep their names, and so their partitions."""

    release: Release

    def versions(self) -> dict[str, str]:
        """Each worker's tag, or else the image's."""
        values = self.release.values()
        workers: dict[str, Any] = values["workers"]
        last_first = sorted(workers, key=lambda name: STAGES.index(workers[name]["stages"].split(",")[0]), reverse=True)
        return {name: workers[name].get("tag") or values["image"]["tag"] for name in last_first}

    def prepare(self, version: str) -> None:
        """Only the Job of the topics gets the image's tag: everything else is held by a tag of its own."""
        values, workers = self.release.values(), self.versions()
        held = [f"workers.{name}.tag={tag}" for name, tag in workers.items()]
        api = f"api.tag={values['api']['tag'] or values['image']['tag']}"
        self.release.change(f"image.tag={version}", api, *held, wait=(*_READY, "--wait-for-jobs"))

    def roll(self, name: str, version: str) -> None:
        """One pod after another, from the last."""
        self.release.change(f"workers.{name}.tag={version}", wait=_READY)


def _run(command: Sequence[str]) -> str:
    try:
        process = subprocess.Popen(  # nosec B603  # a list, no shell
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not on the PATH") from error
    try:
        said, wrong = process.communicate()
    except BaseException:  # not killed, as `subprocess.run` would: helm would leave the release locked
        process.terminate()
        process.communicate()
        raise
    if process.returncode != 0:
        raise ClusterError(f"{' '.join(command[:5])} …: {wrong.strip()[-1000:]}")
    return said
