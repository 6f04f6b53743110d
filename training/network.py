"""The trained part, in torch: upper encoder layers over frozen lower ones, letters, and a CRF over words."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from processors.ner import labels
from processors.ner.words import CHARACTERS, SHAPES

FILTERS = 192
SHAPE_SIZE = 32
HEAD = 256


@dataclass(frozen=True)
class Batch:
    """Padded texts: pieces [texts, pieces], words [texts, words]; word 0 of the batch's own words is padding."""

    states: Tensor  # what the frozen layers give, [texts, pieces, hidden]
    seen: Tensor  # bool [texts, pieces]
    letters: Tensor  # int [texts, words, LETTERS]
    shapes: Tensor  # int [texts, words]
    word_of_piece: Tensor  # int [texts, pieces]; the separators have the padding word, the last
    first_piece: Tensor  # int [texts, words]
    word_seen: Tensor  # bool [texts, words]
    opens: Tensor  # bool [texts, words]; no mention goes on here
    allowed: Tensor  # bool [texts, words, labels]


class Letters(nn.Module):
    """A convolution of width 3 over a word's letters as sums of table rows, its maximum, and the word's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Embedding(len(CHARACTERS), FILTERS)
        self.here = nn.Embedding(len(CHARACTERS), FILTERS)
        self.after = nn.Embedding(len(CHARACTERS), FILTERS)
        self.shape = nn.Embedding(SHAPES, SHAPE_SIZE)
        for table in (self.before, self.here, self.after, self.shape):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, letters: Tensor, shapes: Tensor) -> Tensor:
        """[texts, words, filters and shape]."""
        padded = functional.pad(letters, (1, 1))
        sums = self.before(padded[..., :-2]) + self.here(padded[..., 1:-1]) + self.after(padded[..., 2:])
        sums = sums.masked_fill((letters == 0).unsqueeze(-1), 0.0)
        return torch.cat([functional.relu(sums.amax(-2)), self.shape(shapes)], -1)


class Layer(nn.Module):
    """A post-layer-norm encoder layer; names as in BERT's weights."""

    def __init__(self, hidden: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.attended = nn.Linear(hidden, hidden)
        self.attended_norm = nn.LayerNorm(hidden, epsilon)
        self.intermediate = nn.Linear(hidden, inner)
        self.output = nn.Linear(inner, hidden)
        self.output_norm = nn.LayerNorm(hidden, epsilon)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [texts, pieces, hidden]; the mask is added to the attention's scores."""
        texts, pieces, hidden = states.shape
        query, key, value = (
            linear(states).view(texts, pieces, self.heads, -1).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = self.attended(attended.transpose(1, 2).reshape(texts, pieces, hidden))
        states = self.attended_norm(states + attended)
        inner = self.output(functional.gelu(self.intermediate(states)))
        normed: Tensor = self.output_norm(states + inner)
        return normed


class Tagger(nn.Module):
    """Scores of every word's labels, and of one label after another."""

    starts_mask: Tensor
    transitions_mask: Tensor
    goes_on: Tensor

    def __init__(self, layers: int, *, hidden: int = 384, heads: int = 12, inner: int = 1536, dropout: float) -> None:
        super().__init__()
        self.letters = Letters()
        self.mix = nn.Linear(FILTERS + SHAPE_SIZE, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, inner, 1e-12) for _ in range(layers))
        self.head = nn.Linear(hidden + FILTERS + SHAPE_SIZE, HEAD)
        self.label = nn.Linear(HEAD, len(labels.LABELS))
        self.starts = nn.Parameter(torch.zeros(len(labels.LABELS)))
        self.transitions = nn.Parameter(torch.zeros(len(labels.LABELS), len(labels.LABELS)))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("starts_mask", torch.from_numpy(labels.starts_mask()), persistent=False)
        self.register_buffer("transitions_mask", torch.from_numpy(labels.transitions_mask()), persistent=False)
        goes_on = torch.zeros(len(labels.LABELS))
        goes_on[2::2] = float(labels.FORBIDDEN)
        self.register_buffer("goes_on", goes_on, persistent=False)
        nn.init.normal_(self.mix.weight, std=0.02)
        nn.init.zeros_(self.mix.bias)

    def scores(self, batch: Batch) -> Tensor:
        """Of every word's labels: [texts, words, labels]."""
        written = self.dropout(self.letters(batch.letters, batch.shapes))
        mixed = self.mix(written)
        spread = torch.gather(mixed, 1, batch.word_of_piece.unsqueeze(-1).expand(-1, -1, mixed.shape[-1]))
        states = self.dropout(batch.states) + spread
        mask = torch.zeros(batch.seen.shape).masked_fill(~batch.seen, -1e9)[:, None, None, :]
        for layer in self.layers:
            states = layer(states, mask)
        first = torch.gather(states, 1, batch.first_piece.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        head = functional.gelu(self.head(torch.cat([self.dropout(first), written], -1)))
        scores: Tensor = self.label(self.dropout(head))
        return scores + batch.opens.unsqueeze(-1) * self.goes_on

    def loss(self, batch: Batch) -> Tensor:
        """Negative log of the probability that the labels are some of those allowed, per word."""
        scores = self.scores(batch)
        forbidden = torch.zeros(batch.allowed.shape).masked_fill(~batch.allowed, float(labels.FORBIDDEN))
        both = torch.cat([scores, scores + forbidden])
        total, allowed = self._log_sums(both, batch.word_seen.repeat(2, 1)).chunk(2)
        return (total - allowed).sum() / batch.word_seen.sum()

    def _log_sums(self, scores: Tensor, seen: Tensor) -> Tensor:
        transitions = (self.transitions + self.transitions_mask).unsqueeze(0)
        sums = self.starts + self.starts_mask + scores[:, 0]
        for word in range(1, scores.shape[1]):
            following = torch.logsumexp(sums.unsqueeze(2) + transitions, 1) + scores[:, word]
            sums = torch.where(seen[:, word : word + 1], following, sums)
        return torch.logsumexp(sums, 1)
