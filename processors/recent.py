"""How many of the last minutes' texts were read by less than what was chosen."""

from collections import defaultdict

WINDOW = 300.0
_BUCKET = 10.0


class Recent:
    """Counts of the last five minutes, to ten seconds. All times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._texts: dict[int, int] = defaultdict(int)
        self._degraded: dict[int, int] = defaultdict(int)

    def add(self, at: float, *, texts: int, degraded: int) -> None:
        """Note texts."""
        self._texts[int(at // _BUCKET)] += texts
        self._degraded[int(at // _BUCKET)] += degraded
        for old in [bucket for bucket in self._texts if bucket < max(self._texts) - WINDOW / _BUCKET]:
            del self._texts[old], self._degraded[old]

    def summary(self, now: float) -> dict[str, float | None]:
        """``texts``, ``degraded``, and the ``share`` of these, which is None of no texts."""
        live = [bucket for bucket in self._texts if bucket > (now - WINDOW) // _BUCKET]
        texts, degraded = (sum(counts[bucket] for bucket in live) for counts in (self._texts, self._degraded))
        return {"texts": texts, "degraded": degraded, "share": round(degraded / texts, 4) if texts else None}
