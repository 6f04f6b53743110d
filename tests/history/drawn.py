"""One history, the same for the same seed."""

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.history.operations import Operation, histories, left_of


def drawn(*, seed: int, length: int, kills: int) -> list[Operation]:
    """The first history that hypothesis draws from a seed, but for its simplest, in which nothing happens."""
    found: list[list[Operation]] = []

    @seeded(seed)
    @settings(
        max_examples=5, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(histories(length=length, kills=kills))
    def collect(history: list[Operation]) -> None:
        if len(left_of(history)) > min(length // 8, 10):
            found.append(history)

    collect()
    return found[0]
