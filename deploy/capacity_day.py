"""A day of documents through the stages, simulated: exact for queues in order, whatever the arrivals and services.

Every worker is one queue: it reads its partitions, in order, one record after the other. Who left when follows from
Lindley's recursion, for all records of a worker at once. What is not in it: micro-batches, network, rebalances that
stop everybody (a second or so), and stores that slow down as they fill.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from schemas.records import STAGES, StageName

Floats = NDArray[np.float64]
MAX_DOCUMENTS = 5_000_000

_DAY = 86_400.0
_PEAK_AT = 14 / 24
_MINUTES = 1440
# Where a stage's records come from; chunks go two ways.
_AFTER: Mapping[StageName, StageName | None] = {
    "chunk": None,
    "embed": "chunk",
    "extract": "chunk",
    "index-vectors": "embed",
    "index-graph": "extract",
}


@dataclass(frozen=True)
class Loss:
    """A worker of a stage is gone from ``at`` on for ``seconds``; after ``noticed`` the others have its partitions."""

    stage: StageName
    at: float = _PEAK_AT * _DAY
    seconds: float = 600.0
    noticed: float = 30.0


class Day(BaseModel):
    """Seconds that a day's documents waited and were worked on."""

    model_config = ConfigDict(frozen=True)

    documents: int
    stage_p95: dict[StageName, float]
    stage_max: dict[StageName, float]
    searchable_p50: float
    searchable_p95: float
    searchable_max: float
    indexed_p95: float
    indexed_max: float
    caught_up_after: float | None = None


def simulate(
    documents: float,
    services: Mapping[StageName, float],
    workers: Mapping[StageName, int],
    *,
    partitions: int,
    peak: float = 1.0,
    variation: float = 1.0,
    loss: Loss | None = None,
    seed: int = 0,
) -> Day:
    """A day, from empty topics at midnight.

    Args:
        documents: Expected number of them; they arrive at random, at ``peak`` times their mean rate at two o'clock.
        services: Seconds of work of each stage for a document of mean length.
        workers: Of each stage.
        partitions: Of every topic; a document's key decides at random.
        peak: The busiest moment to the mean.
        variation: Standard deviation of a document's length to its mean (a gamma distribution); 0: all alike.
        loss: A worker that is lost.
        seed: The same one gives the same day.

    Raises:
        ValueError: More documents than ``MAX_DOCUMENTS``.
    """
    if documents > MAX_DOCUMENTS:
        raise ValueError(f"{documents:,.0f} documents are more than the {MAX_DOCUMENTS:,} that are simulated")
    generator = np.random.default_rng(seed)
    arrived = arrivals(generator, documents, peak)
    lengths = generator.gamma(variation**-2, variation**2, len(arrived)) if variation else np.ones(len(arrived))
    partition = generator.integers(partitions, size=len(arrived))
    left: dict[StageName, Floats] = {}
    lags: dict[StageName, Floats] = {}
    for stage in STAGES:
        before = _AFTER[stage]
        came = arrived if before is None else left[before]
        lost = loss if loss and loss.stage == stage else None
        left[stage] = stage_departures(came, services[stage] * lengths, partition, workers[stage], lost)
        lags[stage] = left[stage] - came
    searchable, indexed = left["index-vectors"] - arrived, left["index-graph"] - arrived
    return Day(
        documents=len(arrived),
        stage_p95={stage: _round(np.quantile(lag, 0.95)) for stage, lag in lags.items()},
        stage_max={stage: _round(lag.max()) for stage, lag in lags.items()},
        searchable_p50=_round(np.median(searchable)),
        searchable_p95=_round(np.quantile(searchable, 0.95)),
        searchable_max=_round(searchable.max()),
        indexed_p95=_round(np.quantile(indexed, 0.95)),
        indexed_max=_round(indexed.max()),
        caught_up_after=_caught_up(loss, left[loss.stage], lags[loss.stage]) if loss else None,
    )


def arrivals(generator: np.random.Generator, documents: float, peak: float) -> Floats:
    """Times of a Poisson process over a day, in order; its rate is a von Mises curve with that peak to its mean."""
    edges = np.linspace(0, _DAY, _MINUTES + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    rate = np.exp(_concentration(peak) * (np.cos(2 * np.pi * (middle / _DAY - _PEAK_AT)) - 1))
    shares = np.concatenate([[0.0], np.cumsum(rate)]) / rate.sum()
    places = np.sort(generator.random(generator.poisson(documents)))
    return np.asarray(np.interp(places, shares, edges))


def stage_departures(
    came: Floats, service: Floats, partition: NDArray[np.int64], workers: int, loss: Loss | None = None
) -> Floats:
    """When each record left a stage that shares its partitions among so many workers, each first come, first served."""
    worker, ready = partition % workers, came
    if loss:
        worker, ready = _handed_over(came, service, partition, workers, loss)
    left = np.empty_like(came)
    for number in range(workers):
        mine = np.flatnonzero(worker == number)
        mine = mine[np.argsort(ready[mine], kind="stable")]
        left[mine] = departures(ready[mine], service[mine])
    return left


def departures(ready: Floats, service: Floats) -> Floats:
    """Lindley's recursion: who is next begins when it is ready and the one before has left."""
    worked = np.cumsum(service)
    return np.asarray(worked + np.maximum.accumulate(ready - (worked - service))) if len(ready) else ready


def _handed_over(
    came: Floats, service: Floats, partition: NDArray[np.int64], workers: int, loss: Loss
) -> tuple[NDArray[np.int64], Floats]:
    """By whom and from when on each record is worked on, if worker 0 is lost: what it had not done is done again."""
    worker, back = partition % workers, loss.at + loss.seconds
    mine = np.flatnonzero(worker == 0)
    mine = mine[np.argsort(came[mine], kind="stable")]
    late = mine[(departures(came[mine], service[mine]) > loss.at) & (came[mine] < back)]
    ready = came.copy()
    if workers == 1:
        ready[late] = np.maximum(came[late], back)
    else:
        worker[late] = 1 + partition[late] // workers % (workers - 1)
        ready[late] = np.maximum(came[late], loss.at + loss.noticed)
    return worker, ready


def _caught_up(loss: Loss, left: Floats, lag: Floats) -> float:
    """Seconds from the loss until no record is later than any was in the hour before."""
    came = left - lag
    usual = lag[(came > loss.at - 3600) & (left < loss.at)].max(initial=0.0)
    late = left[(lag > usual) & (left > loss.at) & (came < loss.at + loss.seconds)]
    return _round(late.max(initial=loss.at) - loss.at)


def _concentration(peak: float) -> float:
    """Of the von Mises distribution whose density is that many times the uniform one at its peak."""
    low, high = 0.0, 500.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp(middle) / np.i0(middle) < peak else (low, middle)
    return low


def _round(seconds: float) -> float:
    return round(float(seconds), 3)
