"""The trained part of the relation classifier, in torch: upper encoder layers, and pairs that attend to the text."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from processors.relations.graph import BLOCKS, FROZEN, PAIR_HEADS, PAIR_SIZE
from processors.relations.pairs import CLASSES, DISTANCES, KINDS, ZONES, Numbers, Pairs
from training.network import Layer


class Block(nn.Module):
    """A pair looks at the text's pieces, in each zone as it has learned to, and then thinks about it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query, self.attended = nn.Linear(PAIR_SIZE, PAIR_SIZE), nn.Linear(PAIR_SIZE, PAIR_SIZE)
        self.key, self.value = nn.Linear(hidden, PAIR_SIZE), nn.Linear(hidden, PAIR_SIZE)
        self.zones = nn.Embedding(ZONES, PAIR_HEADS)
        self.attended_norm = nn.LayerNorm(PAIR_SIZE, 1e-12)
        self.intermediate, self.output = nn.Linear(PAIR_SIZE, 2 * PAIR_SIZE), nn.Linear(2 * PAIR_SIZE, PAIR_SIZE)
        self.output_norm = nn.LayerNorm(PAIR_SIZE, 1e-12)
        self.dropout = nn.Dropout(0.1)
        nn.init.zeros_(self.zones.weight)

    def forward(self, pairs: Tensor, states: Sequence[Tensor], zones: Sequence[Tensor]) -> Tensor:
        """Pairs of all texts [pairs, size]; of each text states [pieces, hidden] and zones [pairs, pieces]."""
        queries = self.query(pairs).split([len(of) for of in zones])
        looks = zip(queries, states, zones, strict=True)
        attended = self.attended(torch.cat([self._look(*look) for look in looks]))
        pairs = self.attended_norm(pairs + self.dropout(attended))
        inner = self.output(functional.gelu(self.intermediate(pairs)))
        normed: Tensor = self.output_norm(pairs + self.dropout(inner))
        return normed

    def _look(self, query: Tensor, states: Tensor, zones: Tensor) -> Tensor:
        bias = self.zones(zones).permute(2, 0, 1).unsqueeze(0)
        attended: Tensor = functional.scaled_dot_product_attention(
            _heads(query), _heads(self.key(states)), _heads(self.value(states)), attn_mask=bias
        )
        return attended.transpose(1, 2).reshape(-1, PAIR_SIZE)


def _heads(states: Tensor) -> Tensor:
    return states.view(1, len(states), PAIR_HEADS, -1).transpose(1, 2)


class Classifier(nn.Module):
    """Scores of every pair's relation types."""

    def __init__(self, types: int, *, layers: int = 6 - FROZEN, hidden: int = 384) -> None:
        super().__init__()
        self.kinds = nn.Embedding(KINDS, hidden)
        self.layers = nn.ModuleList(Layer(hidden, 12, 1536, 1e-12) for _ in range(layers))
        self.source, self.target = nn.Linear(hidden, PAIR_SIZE), nn.Linear(hidden, PAIR_SIZE)
        self.source_factor, self.target_factor = nn.Linear(hidden, PAIR_SIZE), nn.Linear(hidden, PAIR_SIZE)
        self.distances = nn.Embedding(DISTANCES, PAIR_SIZE)
        self.classes = nn.Embedding(len(CLASSES) ** 2, PAIR_SIZE)
        self.pair_norm = nn.LayerNorm(PAIR_SIZE, 1e-12)
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(BLOCKS))
        self.label = nn.Linear(PAIR_SIZE, types)
        self.dropout = nn.Dropout(0.1)
        for table in (self.kinds, self.distances, self.classes):
            nn.init.normal_(table.weight, std=0.05)
        nn.init.constant_(self.label.bias, -4.0)

    def forward(self, states: Tensor, texts: Sequence[Pairs]) -> Tensor:
        """Scores [pairs of all texts, types], from the frozen layers' states [texts, pieces, hidden]."""
        kinds, seen = torch.zeros((2, *states.shape[:2]), dtype=torch.int64)
        for row, text in enumerate(texts):
            kinds[row, : len(text.kinds)], seen[row, : len(text.kinds)] = torch.from_numpy(text.kinds), 1
        mask = torch.zeros(seen.shape).masked_fill(seen == 0, -1e9)[:, None, None, :]
        states = self.dropout(states + self.kinds(kinds))
        for layer in self.layers:
            states = layer(states, mask)
        of_texts = [row[: len(text.ids)] for row, text in zip(states, texts, strict=True)]
        named = torch.cat([_mean(of, text.spans) for of, text in zip(of_texts, texts, strict=True)])
        pairs = self._joined(self.dropout(named), texts)
        zones = [torch.from_numpy(text.zones) for text in texts]
        for block in self.blocks:
            pairs = block(pairs, of_texts, zones)
        scores: Tensor = self.label(self.dropout(pairs))
        return scores

    def _joined(self, named: Tensor, texts: Sequence[Pairs]) -> Tensor:
        before = np.cumsum([0, *(len(text.spans) for text in texts)])
        ends = [text.pairs + offset for text, offset in zip(texts, before, strict=False)]
        sources, targets = torch.from_numpy(np.concatenate(ends)).T
        distances = torch.from_numpy(np.concatenate([text.distances for text in texts]))
        classes = torch.from_numpy(np.concatenate([text.pair_classes for text in texts]))
        product = self.source_factor(named)[sources] * self.target_factor(named)[targets]
        pairs = self.source(named)[sources] + self.target(named)[targets] + product
        normed: Tensor = self.pair_norm(pairs + self.distances(distances) + self.classes(classes))
        return normed


def _mean(states: Tensor, spans: Numbers) -> Tensor:
    """The mean state of each span of pieces: [mentions, hidden]."""
    pieces = np.arange(len(states))
    within = torch.from_numpy((pieces >= spans[:, :1]) & (pieces < spans[:, 1:])).float()
    return within @ states / within.sum(-1, keepdim=True)
