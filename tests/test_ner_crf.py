"""The chain over labels, against every sequence of labels counted out."""

from itertools import pairwise, product

import numpy as np
import pytest

from processors.ner import crf, labels

WORDS = 3
CHANCE = np.random.default_rng(5)
SCORES = CHANCE.normal(0, 2, (WORDS, len(labels.LABELS))).astype(np.float32)
STARTS = CHANCE.normal(0, 1, len(labels.LABELS)).astype(np.float32) + labels.starts_mask()
TRANSITIONS = CHANCE.normal(0, 1, (len(labels.LABELS),) * 2).astype(np.float32) + labels.transitions_mask()


def score(path: tuple[int, ...]) -> float:
    steps = sum(TRANSITIONS[before, after] for before, after in pairwise(path))
    return float(STARTS[path[0]] + steps + sum(SCORES[word, label] for word, label in enumerate(path)))


PATHS = {path: score(path) for path in product(range(len(labels.LABELS)), repeat=WORDS)}


def test_the_best_labels_are_the_best_of_all() -> None:
    padded = np.concatenate([SCORES, np.full((2, len(labels.LABELS)), 9, np.float32)])
    (path,) = crf.viterbi(padded[None], [WORDS], STARTS, TRANSITIONS)
    assert tuple(path) == max(PATHS, key=lambda path: PATHS[path])


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("type_", range(len(labels.TYPES)))
def test_a_mention_is_as_probable_as_the_label_sequences_that_hold_it(start: int, end: int, type_: int) -> None:
    weights = {path: np.exp(score) for path, score in PATHS.items()}
    holding = sum(weight for path, weight in weights.items() if (start, end, type_) in crf.mentions(path))
    probability = crf.Marginals(SCORES, STARTS, TRANSITIONS).of_mention(start, end, type_)
    assert probability == pytest.approx(holding / sum(weights.values()), rel=1e-4, abs=1e-9)


def test_no_mention_begins_inside_or_changes_its_type() -> None:
    (path,) = crf.viterbi(np.full((1, 4, len(labels.LABELS)), 0, np.float32), [4], STARTS, TRANSITIONS)
    for before, after in zip([labels.OUTSIDE, *path], path, strict=False):
        assert after == labels.OUTSIDE or after % 2 == 1 or before in (after, after - 1)


def test_mentions_of_labels() -> None:
    person, organisation = labels.begin(0), labels.begin(1)
    assert list(crf.mentions([person, person + 1, person, 0, organisation])) == [(0, 2, 0), (2, 3, 0), (4, 5, 1)]
    assert list(crf.mentions([])) == []
