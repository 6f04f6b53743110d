"""What a stage in this process is doing, for readiness, the watchdog and the metrics."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.records import StageName


@dataclass
class StageHealth:
    """Mutable, one per stage and process; written by the agent, read by threads."""

    stage: StageName
    problem: str | None = "starting"  # why the stage is not working at the moment
    tripped: str | None = None  # why the breaker has stopped it
    handled: int = 0
    dead_lettered: int = 0
    retried: int = 0
    is_working: bool = False  # a batch is under way
    progress_at: float = field(default_factory=time.monotonic)
    partitions: frozenset[int] = frozenset()
    assigned: threading.Event = field(default_factory=threading.Event)

    def progressed(self) -> None:
        """Note that the agent is alive: a batch is done, or it waits for a reason it knows."""
        self.progress_at = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While a batch is under way, which on a busy machine takes as long as it takes."""
        self.progressed()
        self.is_working = True
        try:
            yield
        finally:
            self.is_working = False
            self.progressed()

    @property
    def is_ready(self) -> bool:
        """Whether the stage takes records."""
        return self.problem is None and self.tripped is None

    def summary(self) -> dict[str, object]:
        """For ``/health``."""
        return {
            "ready": self.is_ready,
            "reason": self.tripped or self.problem,
            "handled": self.handled,
            "retried": self.retried,
            "dead_lettered": self.dead_lettered,
        }
