"""What one run of a benchmark does worse than the run before, beyond what chance does.

Seconds are not compared: another load of the same machine changes them. What is compared are CPU seconds in those of a
fixed work measured in between (``tests.extraction_speed.Yardstick``), memory, how time grows, and quality, which is the
same in every run of the same code. That work no longer spreads over the cores is therefore not seen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Margin:
    """How much worse a figure may be: so many times what it was, or by so much."""

    times: float = 1.0
    by: float = 0.0
    less_is_worse: bool = False

    def allows(self, now: float, last: float) -> bool:
        """Whether the difference is within the margin. What is better is always allowed."""
        if self.less_is_worse:
            return now >= last / self.times - self.by
        return now <= last * self.times + self.by


MARGINS: Mapping[str, Mapping[str, Margin]] = {
    "speed": {
        "yardsticks": Margin(times=1.25),
        "peak_mb": Margin(times=1.15),
    },
    "growth": {"exponent": Margin(by=0.1)},
    "quality": {score: Margin(by=0.01, less_is_worse=True) for score in ("precision", "recall", "f1")},
}
"""Of each section of a run, its figures that are compared."""


def comparable(now: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Whether both runs were of the same texts on machines of one kind."""
    return all(now[what] == last[what] for what in ("texts", "machine"))


def regressions(now: Mapping[str, Any], last: Mapping[str, Any]) -> Iterator[str]:
    """A line for each figure that is worse than the margin allows, or that the last run had and this one has not."""
    for section, margins in MARGINS.items():
        for name, figures in last[section].items():
            for figure, margin in margins.items():
                was, is_now = figures[figure], now[section].get(name, {}).get(figure)
                if is_now is None:
                    yield f"{section}: {name}: {figure} was {was} and is not there"
                elif not margin.allows(is_now, was):
                    yield f"{section}: {name}: {figure} was {was} and is {is_now}, beyond {_shown(margin)}"


def _shown(margin: Margin) -> str:
    return f"{margin.times} times" if margin.times != 1 else f"{margin.by}"
