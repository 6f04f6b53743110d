"""What one extraction pipeline costs: time of each phase, CPU time, memory; beside a fixed work in the same run."""

import re
import resource
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from processors import build
from processors.extract import Found, Phase
from schemas.ids import entity_id
from schemas.settings import Settings

PIPELINES: Mapping[str, Mapping[str, str]] = {
    "rules": {"names": "rules", "relations": "none"},
    "model": {"names": "model", "relations": "none"},
    "model + classifier": {"names": "model", "relations": "classifier"},
}
"""Settings of the extraction, by the pipeline's name here."""


@dataclass(frozen=True)
class Workload:
    """Chunks by the call of the extractor that they come in, and what they were cut from."""

    documents: int
    words: int
    calls: Sequence[Sequence[str]]


class Spent(NamedTuple):
    """Seconds on the clock, and of all this process's threads."""

    wall: float
    cpu: float


class Yardstick:
    """A work that no change of the project alters, of matrices and of plain Python as an extraction is.

    What else the machine does slows both, so that an extraction's CPU seconds in yardsticks stay where its seconds do
    not. One thread does it: threads of BLAS that wait for one another on a busy machine use CPU time for nothing.
    """

    def __init__(self) -> None:
        self._matrix = np.random.default_rng(7).standard_normal((200, 200), dtype=np.float32)
        self._text = "Ada Lovelace wrote the first program for an engine that Charles Babbage never built. " * 3000

    def __call__(self) -> None:
        product = self._matrix
        for _ in range(20):
            product = np.tanh(np.einsum("ij,jk->ik", self._matrix, product, optimize=False))
        Counter(word.casefold() for word in re.findall(r"\w+", self._text) if word[0].isupper())


class _Phases:
    """Seconds of each phase, summed."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def chosen(self, pipeline: str, phases: Mapping[str, Phase]) -> None:
        pass

    def phase(self, name: str, seconds: float, *, pipeline: str) -> None:
        self.seconds[name] += seconds

    def found(self, found: Sequence[Found]) -> None:
        pass

    def failed(self, phase: str, error: Exception) -> None:
        raise SystemExit(f"{phase} failed, the figures would mean nothing: {error}")


@dataclass(frozen=True)
class Round:
    """One pass through a workload; yardsticks are its CPU seconds in those of the yardstick, for 1,000 words."""

    seconds: float
    cpu_seconds: float
    yardsticks: float
    phases: Mapping[str, float]


def measured(pipeline: str, workload: Workload, *, least_seconds: float) -> dict[str, Any]:
    """Figures of the median round of those that use at least so many CPU seconds together.

    Peak memory is the process's own, so call it in a fresh one.
    """
    phases = _Phases()
    settings = Settings(extraction=PIPELINES[pipeline])
    begun = time.perf_counter()
    extractor = build.build_extractor(settings, observe=phases)
    load_seconds = time.perf_counter() - begun
    loaded_mb = peak_mb()
    extractor.extract(workload.calls[0][:4])
    yardstick = Yardstick()
    yardstick()
    passes: list[Round] = []
    found: list[Found] = []
    while sum(one.cpu_seconds for one in passes) < least_seconds:
        phases.seconds.clear()
        one, found = one_round(workload, extractor.extract, yardstick)
        rest = one.seconds - sum(phases.seconds.values())
        passes.append(replace(one, phases={**phases.seconds, "rest": rest}))
    return {
        **_speed(workload, sorted(passes, key=lambda one: one.seconds)[len(passes) // 2]),
        "yardsticks": round(statistics.median(one.yardsticks for one in passes), 3),
        "load_seconds": round(load_seconds, 2),
        "loaded_mb": loaded_mb,
        "peak_mb": peak_mb(),
        **_counts(found),
    }


def peak_mb() -> int:
    """The most memory this process has held so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))


def growth(words: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent with which the cost grows over words: the slope in logarithms; 1 is linear."""
    return float(np.polyfit(np.log(words), np.log(costs), 1)[0])


def one_round(
    workload: Workload, extract: Callable[[Sequence[str]], list[Found]], yardstick: Callable[[], object]
) -> tuple[Round, list[Found]]:
    """A yardstick before each call and one behind the last, so that both meet the same weather."""
    slices, calls, found = [_spent(yardstick).cpu], [], []
    for texts in workload.calls:
        calls.append(_spent(lambda: found.extend(extract(texts))))  # noqa: B023, called before the loop goes on
        slices.append(_spent(yardstick).cpu)
    wall, cpu = (sum(column) for column in zip(*calls, strict=True))
    yardsticks = cpu / statistics.fmean(slices) / workload.words * 1000
    return Round(wall, cpu, yardsticks, {}), found


def _spent(work: Callable[[], object]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def _speed(workload: Workload, one: Round) -> dict[str, Any]:
    return {
        "documents": workload.documents,
        "words": workload.words,
        "chunks": sum(map(len, workload.calls)),
        "seconds": round(one.seconds, 3),
        "cpu_seconds": round(one.cpu_seconds, 3),
        "phases": {name: round(seconds, 4) for name, seconds in one.phases.items()},
        "documents_per_minute": round(60 * workload.documents / one.seconds, 1),
        "words_per_second": round(workload.words / one.seconds),
    }


def _counts(found: Sequence[Found]) -> dict[str, int]:
    relations = [relation.type for one in found for relation in one.relations]
    untyped = relations.count("RELATED_TO")
    return {
        "mentions": sum(len(one.mentions) for one in found),
        "entities": len({entity_id(mention.type, mention.name) for one in found for mention in one.mentions}),
        "typed_relations": len(relations) - untyped,
        "untyped_relations": untyped,
    }
