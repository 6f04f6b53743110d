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

_MASKED = np.float32(-1e9)


def lower_layers(config: bert.BertConfig, weights: bert.Weights) -> ov.Model:
    """The frozen part: int64 ``input_ids`` and ``attention_mask`` [texts, pieces] in, states [.., hidden] out."""
    ids, mask = _parameter("input_ids"), _parameter("attention_mask")
    states = _Graph(config, weights).lower(ids, _attended(mask))
    return ov.Model([states], [ids, mask], "lower")


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
    written, attended = graph.written(letters, shapes), _attended(mask)
    spread = ops.gather(graph.linear(written, "mix"), word_of_piece, np.int64(1), 1)
    states = graph.upper(ops.add(graph.lower(ids, attended), spread), attended)
    first = ops.gather(states, first_piece, np.int64(1), 1)
    head = ops.gelu(graph.linear(ops.concat([first, written], 2), "head"), "erf")
    scores = graph.linear(head, "label")
    return ov.Model([scores], [ids, mask, word_of_piece, first_piece, shapes, letters], "ner")


class _Graph(bert.Graph):
    def lower(self, ids: Any, attended: Any) -> Any:
        states = self.embed(ids)
        for layer in range(FROZEN):
            states = self.layer(states, attended, f"encoder.layer.{layer}.")
        return states

    def upper(self, states: Any, attended: Any) -> Any:
        for layer in range(FROZEN, self.config.layers):
            states = self.layer(states, attended, f"encoder.layer.{layer}.")
        return states

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

    def rows(self, table: str, size: int, numbers: Any) -> Any:
        return ops.gather(ops.constant(self.weight(f"{table}.weight", size, -1)), numbers, np.int64(0))


def _attended(mask: Any) -> Any:
    """Added to the attention's scores: nothing, or what leaves padding out."""
    return ops.multiply(ops.subtract(np.float32(1), ops.unsqueeze(ops.convert(mask, "f32"), [1, 2])), _MASKED)


def _parameter(name: str) -> Any:
    return ops.parameter([-1, -1], np.int64, name=name)
