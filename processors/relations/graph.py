"""The relation classifier as one OpenVINO graph: the embedding model's lower layers, trained ones, and pairs.

A text passes once, whatever the number of its pairs. A pair begins as its two mentions, and attends to the text's
pieces with a bias for the zone each stands in: before, between, behind.
"""

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from processors import bert
from processors.relations.pairs import CLASSES, DISTANCES, KINDS, ZONES

FROZEN = 3
"""Layers of the embedding model taken as they are."""
PAIR_SIZE = 256
PAIR_HEADS = 8
BLOCKS = 1

_EPSILON = 1e-12
_ENDS = ("source", "target")


def build(config: bert.BertConfig, weights: bert.Weights) -> ov.Model:
    """Scores of the types of every pair of one text, float32 [pairs, types].

    Inputs, all int64: ``ids`` and ``kinds`` [1, pieces], ``spans`` [mentions, 2], ``pairs`` [pairs, 2],
    ``distances`` and ``classes`` [pairs], ``zones`` [pairs, pieces].

    Raises:
        ValueError: A weight is missing or does not have the shape that the configuration says.
    """
    graph = _Graph(config, weights)
    ids, kinds, spans, pairs, zones = (_parameter(name) for name in ("ids", "kinds", "spans", "pairs", "zones"))
    distances, classes = (ops.parameter([-1], np.int64, name=name) for name in ("distances", "classes"))
    nothing = ops.constant(np.zeros((1, 1, 1, 1), np.float32))
    states = graph.layers(graph.embed(ids), nothing, range(FROZEN))
    states = graph.layers(ops.add(states, graph.rows("kinds", KINDS, kinds)), nothing, range(FROZEN, config.layers))
    joined = graph.joined(_mean(states, spans), pairs)
    joined = ops.add(joined, graph.rows("distances", DISTANCES, distances))
    joined = ops.add(joined, graph.rows("classes", len(CLASSES) ** 2, classes))
    joined = ops.unsqueeze(graph.normalise(joined, "pair_norm"), [0])
    for block in range(BLOCKS):
        joined = graph.block(joined, states, zones, f"blocks.{block}.")
    scores = ops.squeeze(graph.linear(joined, "label"), [0])
    return ov.Model([scores], [ids, kinds, spans, pairs, distances, classes, zones], "relations")


class _Graph(bert.Graph):
    def joined(self, named: Any, pairs: Any) -> Any:
        """Mentions [mentions, hidden] to pairs [pairs, size]: a sum and a product of both ends."""
        places = {end: ops.gather(pairs, np.int64(number), np.int64(1)) for number, end in enumerate(_ENDS)}
        source, target, source_factor, target_factor = (
            ops.gather(self.linear(named, end + suffix), places[end], np.int64(0))
            for suffix in ("", "_factor")
            for end in _ENDS
        )
        return ops.add(ops.add(source, target), ops.multiply(source_factor, target_factor))

    def block(self, pairs: Any, states: Any, zones: Any, prefix: str) -> Any:
        """Pairs [1, pairs, size] look at the states [1, pieces, hidden]."""
        query = self.heads(self.linear(pairs, prefix + "query"))
        key, value = (self.heads(self.linear(states, prefix + name)) for name in ("key", "value"))
        bias = ops.unsqueeze(ops.transpose(self.rows(prefix + "zones", ZONES, zones), [2, 0, 1]), [0])
        attended = ops.scaled_dot_product_attention(query, key, value, bias)
        attended = ops.reshape(ops.transpose(attended, [0, 2, 1, 3]), [0, 0, PAIR_SIZE], True)
        pairs = self.normalise(ops.add(pairs, self.linear(attended, prefix + "attended")), prefix + "attended_norm")
        inner = ops.gelu(self.linear(pairs, prefix + "intermediate"), "erf")
        return self.normalise(ops.add(pairs, self.linear(inner, prefix + "output")), prefix + "output_norm")

    def heads(self, states: Any) -> Any:
        split = ops.reshape(states, [0, 0, PAIR_HEADS, PAIR_SIZE // PAIR_HEADS], True)
        return ops.transpose(split, [0, 2, 1, 3])

    def normalise(self, states: Any, name: str) -> Any:
        """Layer normalisation, of pairs as well, which are not as wide."""
        scale, shift = self.weight(f"{name}.weight", -1), self.weight(f"{name}.bias", -1)
        centred = ops.mvn(states, np.array([-1], np.int64), True, _EPSILON, "inside_sqrt")
        return ops.add(ops.multiply(centred, ops.constant(scale)), ops.constant(shift))


def _mean(states: Any, spans: Any) -> Any:
    """The mean state of each span of pieces: [mentions, hidden]."""
    length = ops.squeeze(ops.slice(ops.shape_of(states), [1], [2], [1]), [0])
    pieces = ops.range(np.int64(0), length, np.int64(1), "i64")
    first, behind = (ops.slice(spans, [end], [end + 1], [1], [1]) for end in (0, 1))
    within = ops.convert(ops.logical_and(ops.greater_equal(pieces, first), ops.less(pieces, behind)), "f32")
    total = ops.matmul(within, ops.squeeze(states, [0]), False, False)
    return ops.divide(total, ops.reduce_sum(within, np.array([1], np.int64), True))


def _parameter(name: str) -> Any:
    return ops.parameter([-1, -1], np.int64, name=name)
