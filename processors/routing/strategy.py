"""Which of several models is asked first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from schemas.settings import Llm


@dataclass(frozen=True)
class Traits:
    """Of one model and one question: money it may cost, quality (0 to 1), seconds to the first word."""

    cost: float
    quality: float
    seconds: float


T = TypeVar("T")


def ranked(models: Sequence[tuple[T, Traits]], settings: Llm) -> list[T]:
    """The models by the settings' strategy, the first choice first; equals stay in the settings' order.

    ``hybrid`` is the weighted mean of three scores from 0 to 1: quality as it is, cost and latency as one minus their
    share of the highest among these models.
    """
    most = max((traits.cost for _, traits in models), default=0.0) or 1.0
    slowest = max((traits.seconds for _, traits in models), default=0.0) or 1.0
    weights = settings.weights

    def key(pair: tuple[T, Traits]) -> tuple[float, float]:
        traits = pair[1]
        if settings.strategy == "cost":
            return traits.cost, -traits.quality
        if settings.strategy == "quality":
            return -traits.quality, traits.cost
        if settings.strategy == "latency":
            return traits.seconds, traits.cost
        score = weights.quality * traits.quality
        score += weights.cost * (1 - traits.cost / most) + weights.latency * (1 - traits.seconds / slowest)
        return -score, traits.cost

    return [model for model, _ in sorted(models, key=key)]
