"""How sure the recogniser has to be: a temperature for its confidences, and a threshold for each type."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from processors.ner.labels import TYPES
from processors.ner.recogniser import Span, tempered
from training.corpora import Gold

TypesByLabel = Mapping[str, tuple[str, ...]]
Found = tuple[Sequence[Gold], Sequence[Sequence[Span]], TypesByLabel]

_TEMPERATURES = np.arange(0.8, 4.05, 0.1)
_STEPS = [step / 100 for step in range(50, 96)]


@dataclass(frozen=True)
class Verdict:
    """What was found, and whether it was right."""

    span: Span
    is_right: bool


def verdicts(found: Found) -> Iterator[Verdict]:
    """Of every mention found of a type that the data set tells apart."""
    golds, predictions, mapping = found
    types = {type_ for possible in mapping.values() for type_ in possible}
    for gold, spans in zip(golds, predictions, strict=True):
        wanted = {(start, end): mapping.get(kind, ()) for start, end, kind in gold.mentions}
        for span in spans:
            if span.type in types:
                yield Verdict(span, span.type in wanted.get((span.start, span.end), ()))


def best_temperature(judged: Sequence[Verdict]) -> float:
    """The temperature under which what was right is most probable."""
    return float(min(_TEMPERATURES, key=lambda temperature: _surprise(judged, float(temperature))))


def _surprise(judged: Sequence[Verdict], temperature: float) -> float:
    confidences = np.array([tempered(verdict.span.confidence, temperature) for verdict in judged]).clip(1e-6, 1 - 1e-6)
    is_right = np.array([verdict.is_right for verdict in judged])
    return float(-np.where(is_right, np.log(confidences), np.log(1 - confidences)).mean())


def with_temperature(predictions: Sequence[Sequence[Span]], temperature: float) -> list[list[Span]]:
    """The same mentions with other confidences."""
    return [
        [replace(span, confidence=tempered(span.confidence, temperature)) for span in spans] for spans in predictions
    ]


def thresholds(judged: Mapping[str, Sequence[Sequence[Verdict]]], precisions: Mapping[str, float]) -> dict[str, float]:
    """For each type the lowest threshold at which it is as precise as asked, its data sets counting alike."""
    return {
        type_: next(
            (step for step in _STEPS if _precision(judged[type_], type_, step) >= precisions[type_]), _STEPS[-1]
        )
        for type_ in TYPES
    }


def _precision(judged: Sequence[Sequence[Verdict]], type_: str, threshold: float) -> float:
    kept = [
        [
            verdict.is_right
            for verdict in verdicts
            if verdict.span.type == type_ and verdict.span.confidence >= threshold
        ]
        for verdicts in judged
    ]
    return fmean(fmean(rights) for rights in kept if rights) if any(kept) else 1.0
