"""Self-training: passages known in part, where the recogniser fills in what it is sure of."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from processors.batching import micro_batches
from processors.ner import crf, labels
from training.batches import Prepared, batch
from training.network import Tagger

SURE_OF_MENTION = 0.8
SURE_OF_NONE = 0.95


def fill_in(tagger: Tagger, examples: Sequence[Prepared]) -> Iterator[Prepared]:
    """Of each example the words that may be anything get the label that is sure, and stay open where none is."""
    tagger.eval()
    starts, transitions = (
        (values + mask).detach().numpy()
        for values, mask in ((tagger.starts, tagger.starts_mask), (tagger.transitions, tagger.transitions_mask))
    )
    for positions in micro_batches([len(example.states) for example in examples], 4096):
        chosen = [examples[position] for position in positions]
        with torch.inference_mode():
            scores = tagger.scores(batch(chosen)).numpy()
        paths = crf.viterbi(scores, [len(example.words.spans) for example in chosen], starts, transitions)
        for example, path, row in zip(chosen, paths, scores, strict=True):
            marginals = crf.Marginals(row[: len(path)], starts, transitions)
            yield replace(example, allowed=_narrowed(example.allowed, path, row[: len(path)], marginals))


def _narrowed(
    allowed: NDArray[np.bool_], path: Sequence[int], scores: NDArray[np.float32], marginals: crf.Marginals
) -> NDArray[np.bool_]:
    narrowed = allowed.copy()
    evened = np.exp(scores - scores.max(1, keepdims=True))
    none = evened[:, labels.OUTSIDE] / evened.sum(1)
    for word, label in enumerate(path):
        if label == labels.OUTSIDE and allowed[word, label] and none[word] >= SURE_OF_NONE:
            narrowed[word] = False
            narrowed[word, label] = True
    for start, end, type_ in crf.mentions(path):
        fits = all(allowed[word, path[word]] for word in range(start, end))
        if fits and marginals.of_mention(start, end, type_) >= SURE_OF_MENTION:
            narrowed[start:end] = False
            narrowed[range(start, end), path[start:end]] = True
    return narrowed
