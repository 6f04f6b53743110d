"""How right extraction is on annotated texts that nothing was trained on, each score with its 95 % interval.

The texts, what is compared and how are those of the model cards (``training.release``, ``training.relation_release``).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors import build
from processors.extract import Found, Recogniser
from processors.ner import NamedEntityRecogniser
from processors.ner.recogniser import PACKAGED, Span
from processors.ner.rules import RuleRecogniser
from processors.relations.classifier import ClassifiedRelations
from processors.relations.pairs import Placed
from schemas.ids import entity_id
from schemas.settings import Settings
from tests.extraction_texts import DATA
from training.corpora import Gold, TypesByLabel, held_out
from training.evaluate import count
from training.relation_corpora import Annotated, Fact
from training.relation_release import held_out as held_out_relations
from training.relation_release import held_out_windows
from training.relation_scores import Judged, Said, judged, judged_by_place
from training.release import MAIN_SETS, MAIN_TYPES, evaluated, of_main_types

Figures = dict[str, Any]
"""``precision``, ``recall`` and ``f1``, the intervals of the three, and of how many facts or mentions they are."""

_SAMPLE = 100
SCORES = ("precision", "recall", "f1")


def shipped_thresholds() -> dict[str, float]:
    """The least confidence of each type that the recogniser writes."""
    thresholds: dict[str, float] = json.loads((PACKAGED / "config.json").read_text(encoding="utf-8"))["thresholds"]
    return thresholds


def of_names(golds: Sequence[Gold], found: Sequence[Sequence[Span]], mapping: TypesByLabel) -> Figures:
    """Of whole mentions."""
    counts = count(golds, found, mapping)
    return _figures(counts.scores(), counts.intervals(), int(counts.wanted.sum()))


def of_relations(said: Iterable[Said], wanted: Iterable[tuple[int, Fact]], *, texts: int) -> Figures:
    """As ``training.relation_scores.precision_recall``."""
    counts = np.zeros((texts, 4), np.int64)  # right, judged, facts found, facts
    said, wanted = list(said), set(wanted)
    for one in said:
        counts[one.text, :2] += (one.is_judged and one.is_right, one.is_judged)
    for number, _ in {(one.text, one.fact) for one in said if one.is_right} & wanted:
        counts[number, 2] += 1
    for number, _ in wanted:
        counts[number, 3] += 1
    draws = np.random.default_rng(0).integers(0, texts, (1000, texts))
    low, high = np.percentile([_scores(counts[draw]) for draw in draws], [2.5, 97.5], axis=0)
    return _figures(_scores(counts), list(zip(low.tolist(), high.tolist(), strict=True)), len(wanted))


def _scores(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    right, judged_, found, facts = counts.sum(0).tolist()
    precision, recall = right / max(judged_, 1), found / max(facts, 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def _figures(scores: Sequence[float], intervals: Sequence[tuple[float, float]], wanted: int) -> Figures:
    named = {name: round(score, 4) for name, score in zip(SCORES, scores, strict=True)}
    bounds = {name: [round(low, 3), round(high, 3)] for name, (low, high) in zip(SCORES, intervals, strict=True)}
    return {**named, "intervals": bounds, "wanted": wanted}


def said_surely(classifier: ClassifiedRelations, of: Judged) -> list[Said]:
    """What is as sure as its type's shipped threshold asks."""
    return [one for one in of.said if classifier.is_sure(one.fact[2], one.score)]


def scored_texts(classifier: ClassifiedRelations) -> dict[str, list[Annotated]]:
    """Texts with relations that neither weights nor thresholds were chosen on."""
    sets = held_out_relations(DATA, classifier)
    return {name.removesuffix(", scored"): texts for name, texts in sets.items() if name.endswith("scored")}


def extracted(texts: Sequence[Annotated]) -> list[Found]:
    """What the whole extraction writes with typed relations by the classifier."""
    extractor = build.build_extractor(Settings(extraction={"relations": "classifier"}))
    return extractor.extract([text.text for text in texts])


def relations_by_mentions(
    classifier: ClassifiedRelations, texts: Sequence[Annotated], found: Sequence[Found]
) -> Mapping[str, Figures]:
    """With the mentions given, and with those the extraction found."""
    places = [
        [Placed(one.start, one.end, one.type, entity_id(one.type, one.name)) for one in of.mentions] for of in found
    ]
    sources = {"given": judged(classifier, texts), "own": judged_by_place(classifier, texts, places)}
    return {
        name: of_relations(said_surely(classifier, of), of.wanted, texts=len(texts)) for name, of in sources.items()
    }


def quality() -> dict[str, Figures]:
    """On a sample small enough for a benchmark; of Re-DocRED's relations, on all that is scored."""
    sets = {
        name: (golds[1::2][:_SAMPLE], mapping) for name, (golds, mapping) in held_out(DATA).items() if name in MAIN_SETS
    }
    recognisers: Mapping[str, Recogniser] = {"rules": RuleRecogniser(), "model": NamedEntityRecogniser()}
    figures = {
        f"names by {by}, {'/'.join(MAIN_TYPES)}, {name}": of_names(one.golds, *of_main_types(one.found, one.mapping))
        for by, recogniser in recognisers.items()
        for name, one in evaluated(by, recogniser, sets).items()
    }
    classifier = ClassifiedRelations()
    texts = held_out_windows(DATA, classifier, half=1)
    of_mentions = relations_by_mentions(classifier, texts, extracted(texts))
    return figures | {f"relations, {name} mentions, Re-DocRED": of for name, of in of_mentions.items()}
