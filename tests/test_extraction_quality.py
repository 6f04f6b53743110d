"""The figures of the extraction benchmark and evaluation, on counts that are known; no model is loaded."""

from collections.abc import Sequence

import pytest

from processors.extract import Found
from processors.ner import Span
from tests.extraction_quality import of_names, of_relations
from tests.extraction_speed import Workload, growth, one_round
from training.corpora import Gold
from training.relation_scores import Said, precision_recall

MET = ("a", "b", "MET")
WANTED = {(0, MET), (1, MET), (2, MET), (3, MET)}
SAID = [
    Said(0, MET, 1.0, is_right=True, is_judged=True),
    Said(0, MET, 0.9, is_right=True, is_judged=True),  # twice said is once found
    Said(1, ("a", "c", "MET"), 0.8, is_right=False, is_judged=True),
    Said(2, MET, 0.7, is_right=True, is_judged=False),
    Said(3, ("b", "c", "MET"), 0.6, is_right=False, is_judged=False),
]


def test_relations_are_counted_as_in_the_model_card() -> None:
    figures = of_relations(SAID, WANTED, texts=4)
    expected = precision_recall(SAID, WANTED)
    assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected, abs=1e-4)
    assert (figures["precision"], figures["recall"], figures["wanted"]) == (0.6667, 0.5, 4)


def test_an_interval_holds_its_score_and_narrows_with_more_texts() -> None:
    def width(texts: int) -> float:
        golds = [Gold("Ada met Bob", [(0, 3, "PER"), (8, 11, "PER")])] * texts
        found = [[Span(0, 3, "PERSON", 1.0)] + ([Span(8, 11, "PERSON", 1.0)] if n % 2 else []) for n in range(texts)]
        figures = of_names(golds, found, {"PER": ("PERSON",)})
        low, high = figures["intervals"]["recall"]
        assert low < figures["recall"] == 0.75 < high
        return float(high - low)

    assert width(400) < width(40) / 2


def test_growth_is_the_exponent() -> None:
    assert growth([500, 5_000, 25_000], [1, 10, 50]) == pytest.approx(1)
    assert growth([10, 20, 40], [1, 4, 16]) == pytest.approx(2)


def test_the_yardstick_is_measured_around_every_call() -> None:
    done: list[str] = []

    def extract(texts: Sequence[str]) -> list[Found]:
        done.append("".join(texts))
        return [Found((), (), text) for text in texts]

    workload = Workload(documents=2, words=1000, calls=[["a", "b"], ["c"]])
    _, found = one_round(workload, extract, lambda: done.append("|"))
    assert done == ["|", "ab", "|", "c", "|"]
    assert [of.pipeline for of in found] == ["a", "b", "c"]
