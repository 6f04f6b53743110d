"""How a version follows another: beside it, proved, given its share of the requests step by step, or taken back."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from deploy.delivery.prometheus import Observed

Smoke = Callable[[str], None]
"""Raises where the system at an address does not work."""


class RolledBackError(RuntimeError):
    """The new version was taken back; the one before has all requests."""


class UnhealthyError(RuntimeError):
    """What is seen of the new version does not allow it more requests."""


class Tracks(Protocol):
    """Where two versions of the API run side by side. Every call may be repeated."""

    @property
    def version(self) -> str:
        """The new one."""

    @property
    def url(self) -> str:
        """Where users reach the API."""

    def deploy(self) -> str:
        """Start the new version beside the live one, without requests; the label `track` of its metrics."""

    def candidate(self) -> AbstractContextManager[str]:
        """An address at which the new version alone answers."""

    def shift(self, percent: int) -> None:
        """Give the new version that share of the requests, the other one the rest."""

    def retire(self) -> None:
        """Stop the version that has no requests."""


class Workers(Protocol):
    """The stages' workers; each is a consumer group, of which a rolling update replaces one member after another."""

    def versions(self) -> Mapping[str, str]:
        """What each runs, from the end of the stream: who reads a topic shall never be older than who writes it."""

    def prepare(self, version: str) -> None:
        """Create the topics that a version needs."""

    def roll(self, name: str, version: str) -> None:
        """Replace a worker's processes; return when all are ready."""


@dataclass(frozen=True)
class Plan:
    """Percentages in order, and what a version has to show at each of them; seconds."""

    steps: Sequence[int] = (10, 50, 100)
    hold: float = 120.0
    patience: float = 900.0
    """For ``min_requests``: fewer are no verdict."""
    min_requests: int = 100
    max_errors: float = 0.01
    max_p95: float = 1.0
    interval: float = 5.0
    settle: float = 5.0
    """Until who shares out the requests has heard of a shift: so long a version without requests goes on running."""

    def __post_init__(self) -> None:
        """Refuse steps that do not lead from 0 to 100."""
        if list(self.steps) != sorted(set(self.steps)) or not self.steps or self.steps[-1] != 100 or self.steps[0] < 1:
            raise ValueError(f"steps are percentages that grow to 100, not {list(self.steps)}")


def roll_out(
    tracks: Tracks,
    plan: Plan,
    *,
    smoke: Smoke,
    observe: Callable[[str, float], Observed] | None,
    say: Callable[[str], None],
) -> None:
    """Bring a version to all requests; without ``observe``, smoke tests alone decide.

    Whatever fails, an interrupt too, gives all requests back to the version before.

    Raises:
        RolledBackError: With what was wrong.
    """
    version = tracks.version
    try:
        say(f"{version}: starting beside the live version, without requests")
        track = tracks.deploy()
        with tracks.candidate() as url:
            smoke(url)
        for percent in plan.steps:
            tracks.shift(percent)
            say(f"{version}: {percent} % of the requests")
            if observe is not None:
                say(f"{version}: {_watched(observe, track, plan)}")
        smoke(tracks.url)
    except BaseException as error:
        say(f"{version}: being taken back, because {str(error) or type(error).__name__}")
        tracks.shift(0)
        time.sleep(plan.settle)
        tracks.retire()
        if not isinstance(error, Exception):
            raise
        raise RolledBackError(f"{version} was taken back: {error}") from error


def roll_workers(
    workers: Workers, version: str, *, smoke: Callable[[], None], say: Callable[[str], None], back: bool = False
) -> None:
    """Replace the workers, last stage first, or first stage first where the version is one of before (``back``).

    What fails brings the stages done so far back, in the opposite order.

    Raises:
        RolledBackError: With what was wrong.
    """
    before = workers.versions()
    order = list(before)[:: -1 if back else 1]
    begun: list[str] = []
    try:
        workers.prepare(version)
        for name in order:
            say(f"{name}: {before[name]} to {version}")
            begun.append(name)
            workers.roll(name, version)
            smoke()
    except BaseException as error:
        say(f"{version}: being taken back, because {str(error) or type(error).__name__}")
        for name in reversed(begun):
            workers.roll(name, before[name])
        if not isinstance(error, Exception):
            raise
        raise RolledBackError(f"{version} was taken back: {error}") from error


def _watched(observe: Callable[[str, float], Observed], track: str, plan: Plan) -> str:
    """Look on until the hold is over and there were requests enough; what was seen, in words.

    Raises:
        UnhealthyError: Errors, slowness, or too few requests to tell.
    """
    begun = time.monotonic()
    while True:
        time.sleep(plan.interval)
        elapsed = time.monotonic() - begun
        seen = observe(track, elapsed)
        words = f"{seen.requests:.0f} requests, {seen.errors:.2%} errors, 95 % within {seen.p95:.3f} s"
        enough = seen.requests >= plan.min_requests
        if enough and (seen.errors > plan.max_errors or seen.p95 > plan.max_p95):
            raise UnhealthyError(f"{words}; allowed are {plan.max_errors:.2%} and {plan.max_p95:g} s")
        if enough and elapsed >= plan.hold:
            return words
        if elapsed >= max(plan.patience, plan.hold):
            raise UnhealthyError(f"{words}: fewer than {plan.min_requests} requests in {elapsed:.0f} s are no verdict")
