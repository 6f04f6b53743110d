"""What an extraction does: as metrics, in the log, and for the worker's ``/health/extraction``."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from deploy.model_metrics import EXTRACTED_ENTITIES, EXTRACTED_RELATIONS, EXTRACTION_ERRORS, EXTRACTION_SECONDS
from processors.extract import Found, Phase
from processors.recent import Recent

log = structlog.get_logger()


@dataclass
class _State:
    """How a phase is doing."""

    phase: Phase
    degraded_since: float | None = None
    reason: str | None = None
    last_error: str | None = None
    last_error_at: float | None = None

    def summary(self) -> dict[str, object]:
        return {
            "chosen": self.phase.chosen,
            "loaded": self.phase.missing is None,
            "degraded_since": _iso(self.degraded_since),
            "reason": self.reason,
            "last_error": self.last_error,
            "last_error_at": _iso(self.last_error_at),
            "breaker": self.phase.breaker.state if self.phase.breaker else None,
        }


class ExtractionWatch:
    """Observes one extraction. Written by its thread, read by others."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pipeline = ""
        self._states: dict[str, _State] = {}
        self._recent = Recent()

    def chosen(self, pipeline: str, phases: Mapping[str, Phase]) -> None:
        """What the settings ask for; a phase whose model is missing is degraded from now on."""
        now = self._clock()
        with self._lock:
            self._pipeline = pipeline
            self._states = {name: _State(phase) for name, phase in phases.items()}
            for state in self._states.values():
                if state.phase.missing:
                    state.degraded_since, state.reason = now, state.phase.missing
                    state.last_error, state.last_error_at = state.phase.missing, now

    def phase(self, name: str, seconds: float, *, pipeline: str) -> None:
        """A phase is done with a batch."""
        EXTRACTION_SECONDS.labels(name, pipeline).observe(seconds)
        log.debug("extraction-phase", phase=name, pipeline_type=pipeline, seconds=round(seconds, 4))

    def found(self, found: Sequence[Found]) -> None:
        """What one batch gave, and which phases were up to it."""
        EXTRACTED_ENTITIES.inc(sum(len(one.mentions) for one in found))
        EXTRACTED_RELATIONS.inc(sum(len(one.relations) for one in found))
        if not found:
            return
        reasons = {name: why for one in found for name, why in one.degraded.items()}
        now = self._clock()
        with self._lock:
            self._recent.add(now, texts=len(found), degraded=sum(bool(one.degraded) for one in found))
            for name, state in self._states.items():
                if name not in reasons:
                    state.degraded_since = state.reason = None
                elif state.degraded_since is None:
                    state.degraded_since, state.reason = now, reasons[name]
                else:
                    state.reason = reasons[name]

    def failed(self, phase: str, error: Exception) -> None:
        """A phase could not do its work; the next best took its place."""
        EXTRACTION_ERRORS.labels(phase, type(error).__name__).inc()
        log.warning("extraction-degraded", phase=phase, error=str(error))
        with self._lock:
            if state := self._states.get(phase):
                state.last_error, state.last_error_at = str(error), self._clock()

    def missing(self) -> list[str]:
        """Why models that were chosen could not be loaded."""
        return [state.phase.missing for state in self._states.values() if state.phase.missing]

    def summary(self) -> dict[str, object]:
        """For ``/health/extraction``."""
        with self._lock:
            is_degraded = any(state.degraded_since is not None for state in self._states.values())
            return {
                "status": "degraded" if is_degraded else "ok",
                "pipeline": self._pipeline,
                "phases": {name: state.summary() for name, state in self._states.items()},
                "last_5_minutes": self._recent.summary(self._clock()),
            }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
