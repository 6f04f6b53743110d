"""What the status topic tells of extraction: who reads the texts now, and since when it is not who should."""

import threading

from processors.recent import WINDOW, Recent
from schemas.records import StatusRecord


class ExtractionLog:
    """Is told of every status record, of whatever worker. A document counts once, by its last chunk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent = Recent()
        self._newest: StatusRecord | None = None
        self._newest_degraded: StatusRecord | None = None
        self._degraded_since = 0.0

    def add(self, record: StatusRecord) -> None:
        """Note a record, if it is of an extracted document."""
        if record.state != "extracted" or record.pipeline is None:
            return
        with self._lock:
            self._recent.add(record.at, texts=1, degraded=record.degraded is not None)
            if self._newest is None or self._newest.at <= record.at:
                self._newest = record
            if record.degraded is not None:
                self._add_degraded(record)

    def _add_degraded(self, record: StatusRecord) -> None:
        before = self._newest_degraded
        if before is None or before.at < record.at - WINDOW:
            self._degraded_since = record.at
        if before is None or before.at <= record.at:
            self._newest_degraded = record

    def summary(self, now: float) -> dict[str, object]:
        """As ``api.ports.Extractions``; degraded is what was so in the last five minutes."""
        with self._lock:
            newest, error = self._newest, self._newest_degraded
            is_degraded = error is not None and error.at > now - WINDOW
            return {
                "running": newest.pipeline if newest else None,
                "running_at": newest.at if newest else None,
                "degraded_since": self._degraded_since if is_degraded else None,
                "last_error": error.degraded if error else None,
                "last_error_at": error.at if error else None,
                "last_5_minutes": self._recent.summary(now),
            }
