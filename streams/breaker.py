"""The dead-letter breaker: a bad deploy must not pour a topic into the dead-letter topic."""

from collections import deque

from schemas.settings import Breaker as BreakerSettings


class Breaker:
    """Opens when dead letters come in a row, or make up too large a share of the last records.

    The idea is that of arroyo's ``DlqLimit``. Once open it stays open: a person looks, mends and restarts.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._outcomes: deque[bool] = deque(maxlen=settings.window)
        self._consecutive = 0
        self.reason: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the stage has to stop."""
        return self.reason is not None

    def passed(self, count: int) -> None:
        """Note records that went through."""
        if count:
            self._consecutive = 0
            self._outcomes.extend([False] * min(count, self._settings.window))

    def dead_lettered(self) -> None:
        """Note a dead letter; may open the breaker."""
        self._consecutive += 1
        self._outcomes.append(True)
        dead, seen = sum(self._outcomes), len(self._outcomes)
        if self._consecutive >= self._settings.consecutive:
            self.reason = f"{self._consecutive} dead letters in a row"
        elif seen == self._settings.window and dead >= self._settings.ratio * seen:
            self.reason = f"{dead} of the last {seen} records were dead-lettered"
