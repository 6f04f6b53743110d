"""The recogniser as one OpenVINO graph: the embedding model's own lower layers, and trained ones above them.

The lower layers are frozen, so their weights, word embeddings above all, come from the embedding model's folder. What
they cannot see, how a word is written, joins between them and the trained layers, and again before the labels.
"""

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from processors import bert
from processors.ner.words import CHARACTERS, LETTERS, SHAPES

FROZEN = 3
"""Layers taken as they are."""


def build(config: bert.BertConfig, weights: bert.Weights) -> ov.Model:
    """Scores of every word's labels, float32 [texts, words, labels].

    Inputs, all int64: ``input_ids``, ``attention_mask`` and ``word_of_piece`` [texts, pieces]; ``first_piece`` and
    ``shapes`` [texts, words]; ``letters`` [texts, words, letters]. The separators' word is one of padding.

    Raises:
        ValueError: A weight is missing or does not have the shape that the configuration says.
    """
    graph = _Graph(config, weights)
    ids, mask, word_of_piece = (_parameter(name) for name in ("input_ids", "attention_mask", "word_of_piece"))
    first_piece, shapes = _parameter("first_piece"), _parameter("shapes")
    letters = ops.parameter([-1, -1, LETTERS], np.int64, name="letters")
    written, attended = graph.written(letters, shapes), bert.attention_bias(mask)
    spread = ops.gather(graph.linear(written, "mix"), word_of_piece, np.int64(1), 1)
    states = graph.layers(graph.embed(ids), attended, range(FROZEN))
    states = graph.layers(ops.add(states, spread), attended, range(FROZEN, config.layers))
    first = ops.gather(states, first_piece, np.int64(1), 1)
    head = ops.gelu(graph.linear(ops.concat([first, written], 2), "head"), "erf")
    scores = graph.linear(head, "label")
    return ov.Model([scores], [ids, mask, word_of_piece, first_piece, shapes, letters], "ner")


class _Graph(bert.Graph):
    def written(self, letters: Any, shapes: Any) -> Any:
        """A convolution of width 3 over the letters, as sums of table rows, its maximum, and the word's shape."""
        padded = ops.pad(letters, np.array([0, 0, 1]), np.array([0, 0, 1]), "constant", np.int64(0))
        before, here, after = (
            self.rows(f"letters.{name}", len(CHARACTERS), ops.slice(padded, [offset], [offset + LETTERS], [1], [2]))
            for offset, name in enumerate(("before", "here", "after"))
        )
        is_letter = ops.convert(ops.not_equal(letters, np.int64(0)), "f32")
        sums = ops.multiply(ops.add(ops.add(before, here), after), ops.unsqueeze(is_letter, [3]))
        strongest = ops.relu(ops.reduce_max(sums, np.array([2], np.int64)))
        return ops.concat([strongest, self.rows("letters.shape", SHAPES, shapes)], 2)


def _parameter(name: str) -> Any:
    return ops.parameter([-1, -1], np.int64, name=name)
