"""What counts as worse than the last run of a benchmark, and what is chance."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.regressions import MARGINS, comparable, regressions

RUN: dict[str, Any] = {
    "texts": {"documents": 50, "sha256": "ab"},
    "machine": {"cpus": 2},
    "speed": {"model, large": {"seconds": 20.0, "yardsticks": 5.0, "peak_mb": 300}},
    "growth": {"model": {"exponent": 0.98}},
    "quality": {"names": {"precision": 0.87, "recall": 0.75, "f1": 0.80, "wanted": 900}},
}
COMPARED = [
    (section, name, figure) for section, margins in MARGINS.items() for name in RUN[section] for figure in margins
]


def changed(section: str, name: str, figure: str, value: float) -> dict[str, Any]:
    run = deepcopy(RUN)
    run[section][name][figure] = value
    return run


@pytest.mark.parametrize(("section", "name", "figure"), COMPARED)
def test_what_is_beyond_the_margin_is_named(section: str, name: str, figure: str) -> None:
    was, margin = RUN[section][name][figure], MARGINS[section][figure]
    at = was / margin.times - margin.by if margin.less_is_worse else was * margin.times + margin.by
    beyond = -1e-6 if margin.less_is_worse else 1e-6
    assert list(regressions(changed(section, name, figure, at), RUN)) == []
    (line,) = regressions(changed(section, name, figure, at + beyond), RUN)
    assert line.startswith(f"{section}: {name}: {figure} was {was} and is ")


@given(st.floats(0.75, 1.2), st.floats(0.9, 1.1), st.floats(-0.009, 0.009))
def test_chance_is_no_regression(cpu: float, memory: float, quality: float) -> None:
    run = deepcopy(RUN)
    of = run["speed"]["model, large"]
    of |= {"yardsticks": 5 * cpu, "peak_mb": 300 * memory}
    run["growth"]["model"]["exponent"] += 10 * quality
    run["quality"]["names"]["f1"] += quality
    assert list(regressions(run, RUN)) == []


def test_a_busy_machine_and_a_better_run_are_no_regressions() -> None:
    assert list(regressions(changed("speed", "model, large", "seconds", 80.0), RUN)) == []
    assert list(regressions(changed("speed", "model, large", "yardsticks", 0.5), RUN)) == []
    assert list(regressions(changed("quality", "names", "precision", 1.0), RUN)) == []


def test_what_is_gone_is_a_regression_and_what_is_new_is_not() -> None:
    more = deepcopy(RUN)
    more["quality"]["relations"] = RUN["quality"]["names"]
    assert list(regressions(more, RUN)) == []
    lines = list(regressions(RUN, more))
    assert lines[0] == "quality: relations: precision was 0.87 and is not there"
    assert len(lines) == 3


def test_runs_of_other_texts_or_machines_are_not_compared() -> None:
    assert comparable(RUN, deepcopy(RUN))
    assert not comparable(RUN, {**RUN, "texts": {"documents": 5, "sha256": "ab"}})
    assert not comparable(RUN, {**RUN, "machine": {"cpus": 64}})
