"""Examples as batches of tensors, with what the frozen layers say computed once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino.properties import hint
from tokenizers import Tokenizer

from processors import bert
from processors.batching import micro_batches, padded
from processors.ner.graph import FROZEN
from processors.ner.labels import LABELS
from processors.ner.words import LETTERS, Words, words_from_encoding
from training.corpora import Example, text_of
from training.network import Batch

MAX_PIECES = 254


@dataclass(frozen=True)
class Prepared:
    """An example with the states of the frozen layers, separators included: float16 [pieces + 2, hidden]."""

    source: str
    words: Words
    states: NDArray[np.float16]
    allowed: NDArray[np.bool_]  # [words, labels]
    has_mention: bool


def prepare(examples: Sequence[Example], tokenizer: Tokenizer, model_folder: Path) -> list[Prepared]:
    """Tokenise, align labels with BERT's words, and run the frozen layers."""
    aligned = [_align(example, tokenizer) for example in examples]
    aligned = [(example, words, allowed) for example, words, allowed in aligned if words.spans]
    lower = _compiled_lower(model_folder)
    states: list[NDArray[np.float16]] = [np.empty(0, np.float16)] * len(aligned)
    for batch in micro_batches([len(words.ids) + 2 for _, words, _ in aligned], 2048):
        ids = [[101, *aligned[position][1].ids, 102] for position in batch]
        for position, row, piece_ids in zip(batch, lower(padded(ids))[0], ids, strict=True):
            states[position] = row[: len(piece_ids)].astype(np.float16)
    return [
        Prepared(example.source, words, state, allowed, example.has_mention)
        for (example, words, allowed), state in zip(aligned, states, strict=True)
    ]


def _compiled_lower(folder: Path) -> ov.CompiledModel:
    weights = bert.read_safetensors(folder / "model.safetensors")
    model = bert.lower_layers(bert.config_from_folder(folder), weights, FROZEN)
    return ov.Core().compile_model(model, "CPU", {hint.inference_precision: ov.Type.f32})


def _align(example: Example, tokenizer: Tokenizer) -> tuple[Example, Words, NDArray[np.bool_]]:
    text = text_of(example)
    words = words_from_encoding(text, tokenizer.encode(text, add_special_tokens=False))
    starts = np.cumsum([0, *(len(word) + 1 for word in example.words)])
    bits = []
    for start, _ in words.spans:
        position = int(np.searchsorted(starts, start, "right")) - 1
        allowed = example.allowed[position]
        begins_later = start > starts[position]
        bits.append(_continued(allowed) if begins_later else allowed)
    table = np.array(bits, np.int64).reshape(-1, 1)
    allowed_labels = (table >> np.arange(len(LABELS))) & 1 == 1
    keep = words.words_within(0, MAX_PIECES) if words.spans else 0
    return example, words.cut(0, keep), allowed_labels[:keep]


def _continued(allowed: int) -> int:
    """Labels of a word that goes on with one whose first part may have these: where it began, it goes on."""
    return sum(1 << (label + 1 if label % 2 else label) for label in range(len(LABELS)) if allowed >> label & 1) or 1


def batch_order(prepared: Sequence[Prepared], max_pieces: int, chance: random.Random) -> list[list[Prepared]]:
    """All examples in batches of similar length, the batches in an order of chance."""
    lengths = [round(len(example.states) * chance.uniform(0.9, 1.1)) for example in prepared]
    order = [[prepared[position] for position in batch] for batch in micro_batches(lengths, max_pieces)]
    chance.shuffle(order)
    return order


def batch(examples: Sequence[Prepared], chance: random.Random | None = None) -> Batch:
    """Pad; with chance, some texts lose their capitals or are all capitals, as the lower layers cannot see."""
    pieces = max(len(example.states) for example in examples)
    words = max(len(example.words.spans) for example in examples) + 1  # the last is padding
    shape = len(examples), words
    states = np.zeros((len(examples), pieces, 384), np.float32)
    seen = np.zeros((len(examples), pieces), bool)
    letters, shapes = np.zeros((*shape, LETTERS), np.int64), np.zeros(shape, np.int64)
    word_of_piece = np.full((len(examples), pieces), words - 1)
    first_piece, word_seen = np.zeros(shape, np.int64), np.zeros(shape, bool)
    opens, allowed = np.zeros(shape, bool), np.ones((*shape, len(LABELS)), bool)
    for row, example in enumerate(examples):
        size, count = len(example.states), len(example.words.spans)
        states[row, :size] = example.states
        seen[row, :size] = True
        letters[row, :count], shapes[row, :count] = example.words.letters, example.words.shapes
        if chance is not None:
            _recase(letters[row, :count], shapes[row, :count], chance)
        word_of_piece[row, 1 : size - 1] = example.words.word_of_piece
        first_piece[row, :count] = np.array(example.words.first_piece) + 1
        word_seen[row, :count] = True
        opens[row, example.words.opens] = True
        allowed[row, :count] = example.allowed
    arrays = (states, seen, letters, shapes, word_of_piece, first_piece, word_seen, opens, allowed)
    return Batch(*(torch.from_numpy(array) for array in arrays))


_LOWERED = np.arange(256)
_LOWERED[30:56] = np.arange(4, 30)
_RAISED = np.arange(256)
_RAISED[4:30] = np.arange(30, 56)
_LOWERED_SHAPE = np.array([0, 1, 1, 1, 1, 1, 6, 7, 8])
_RAISED_SHAPE = np.array([0, 4, 4, 3, 4, 4, 6, 7, 8])


def _recase(letters: NDArray[np.int64], shapes: NDArray[np.int64], chance: random.Random) -> None:
    draw = chance.random()
    if draw < 0.05:
        letters[:], shapes[:] = _LOWERED[letters], _LOWERED_SHAPE[shapes]
    elif draw < 0.08:
        letters[:], shapes[:] = _RAISED[letters], _RAISED_SHAPE[shapes]
