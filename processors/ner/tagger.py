"""The trained model as its files hold it, and one forward pass at a time."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors import bert
from processors.model_folder import read_tokenizer
from processors.ner import graph, labels
from processors.ner.words import LETTERS, Words
from processors.runtimes.openvino import compiled, inferred

FORMAT = 1

_BEGIN, _END = 101, 102  # the encoder's separators


class Tagger:
    """Scores of words' labels. May be shared by threads; forward passes take turns.

    Args:
        folder: The trained part: ``config.json`` and ``ner.safetensors``.
        base: The sentence-transformers folder whose lower layers it was trained on.
        threads: CPU threads; 0 means all cores.

    Raises:
        ValueError: A folder does not hold such a model, or files are damaged or not of the same version.
    """

    def __init__(self, folder: Path, *, base: Path, threads: int) -> None:
        config = bert.read_json(folder / "config.json")
        if config.get("format") != FORMAT or config.get("labels") != list(labels.LABELS):
            raise ValueError(f"{folder}/config.json describes a recogniser of another version")
        weights = bert.verified_safetensors(folder / "ner.safetensors", config["sha256"])
        base_weights = bert.verified_safetensors(base / "model.safetensors", config["base_sha256"])
        self.name: str = config["name"]
        self.temperature: float = config["temperature"]
        self.thresholds: dict[str, float] = config["thresholds"]
        self.starts: NDArray[np.float32] = weights["starts"].astype(np.float32) + labels.starts_mask()
        self.transitions: NDArray[np.float32] = weights["transitions"].astype(np.float32) + labels.transitions_mask()
        self.tokenizer = read_tokenizer(base / "tokenizer.json")
        model = graph.build(bert.config_from_folder(base), {**base_weights, **weights})
        self._request = compiled(model, precision="f32", threads=threads).create_infer_request()
        self._turn = threading.Lock()

    def scores(self, texts: Sequence[Words]) -> NDArray[np.float32]:
        """float32[texts, words, labels], padded behind each text's last word.

        Raises:
            MemoryError: There is not enough memory for so many.
            UnavailableError: The device failed.
        """
        with self._turn:
            return inferred(self._request, _inputs(texts), model=f"the model {self.name}")


def _inputs(texts: Sequence[Words]) -> list[NDArray[Any]]:
    shape = len(texts), max(len(words.ids) for words in texts) + 2
    width = max(len(words.spans) for words in texts) + 1  # the last is padding, and the separators' word
    ids, mask = np.zeros((2, *shape), np.int64)
    word_of_piece = np.full(shape, width - 1, np.int64)
    first_piece, shapes = np.zeros((2, len(texts), width), np.int64)
    letters = np.zeros((len(texts), width, LETTERS), np.int64)
    for row, words in enumerate(texts):
        pieces, count = len(words.ids) + 2, len(words.spans)
        ids[row, :pieces] = [_BEGIN, *words.ids, _END]
        mask[row, :pieces] = 1
        word_of_piece[row, 1 : pieces - 1] = words.word_of_piece
        first_piece[row, :count] = np.array(words.first_piece) + 1
        shapes[row, :count], letters[row, :count] = words.shapes, words.letters
    return [ids, mask, word_of_piece, first_piece, shapes, letters]
