"""A BERT that reads query and passage as one sequence, such as ms-marco-MiniLM-L-6-v2 (Nogueira and Cho 2019)."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from tokenizers import Encoding, Tokenizer

from processors import bert
from processors.errors import PermanentError
from processors.micro_batcher import MicroBatcher, Priority
from processors.model_folder import read_tokenizer
from processors.runtimes.openvino import compiled, inferred

Tokens = NDArray[np.int64]

_MAX_QUEUED_TOKENS = 65536


class CrossEncoderReranker:
    """Scores are probabilities: the sigmoid of the model's logits.

    May be shared by threads, whose pairs then share forward passes.

    Args:
        model_folder: A folder with ``config.json``, ``model.safetensors`` (a ``BertForSequenceClassification`` with
            one label) and ``tokenizer.json``.
        name: What a response may call it.
        max_batch_tokens: Token budget of one forward pass, padding counted.
        threads: CPU threads; 0 means all cores.

    Raises:
        ValueError: The folder does not hold such a model (the weights are looked at on first use).
    """

    def __init__(self, model_folder: Path, *, name: str, max_batch_tokens: int = 2048, threads: int = 0) -> None:
        self.name = name
        self._folder = model_folder
        self._config = bert.encoder_config(model_folder, pooling="cls")
        self._max_batch_tokens = max_batch_tokens
        self._threads = threads
        self._loading = threading.Lock()

    def load(self) -> None:
        """Load the model now rather than on first use.

        Raises:
            ValueError: The tokenizer or the weights are missing or do not fit the configuration.
        """
        with self._loading:
            _ = self._tokenizer, self._batcher

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """A probability per passage; of a pair above the model's length, the longer text loses its end.

        Raises:
            PermanentError: A text is no valid Unicode.
            UnavailableError: The device failed, or is overloaded.
        """
        self.load()
        pairs = self._prepare(query, passages)
        lengths = [len(pair.ids) for pair in pairs]
        return np.array(self._batcher.submit(pairs, lengths, priority=Priority.INTERACTIVE).result(), np.float32)

    def _prepare(self, query: str, passages: Sequence[str]) -> list[Encoding]:
        try:
            return self._tokenizer.encode_batch([(query, passage) for passage in passages])
        except (TypeError, UnicodeError) as error:
            raise PermanentError(f"a text cannot be tokenised, it is no valid Unicode: {error}") from error

    def _infer(self, request: ov.InferRequest, pairs: Sequence[Encoding]) -> list[np.float32]:
        return list(inferred(request, _padded(pairs), model=f"the reranking model {self.name}"))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        path = self._folder / "tokenizer.json"
        tokenizer = read_tokenizer(path)
        if tokenizer.get_vocab_size() > self._config.vocabulary:
            raise ValueError(f"{path} knows more tokens than the model's vocab_size {self._config.vocabulary}")
        tokenizer.enable_truncation(self._config.positions, strategy="longest_first")
        return tokenizer

    @cached_property
    def _batcher(self) -> MicroBatcher[Encoding, np.float32]:
        model = build(self._config, bert.read_safetensors(self._folder / "model.safetensors"))
        request = compiled(model, precision="auto", threads=self._threads).create_infer_request()
        return MicroBatcher(
            lambda pairs: self._infer(request, pairs),
            name=self.name,
            max_batch_tokens=self._max_batch_tokens,
            max_queued_tokens=_MAX_QUEUED_TOKENS,
        )


def build(config: bert.BertConfig, weights: bert.Weights) -> ov.Model:
    """The classifier: int64 ``input_ids``, ``token_type_ids``, ``attention_mask`` [batch, tokens] to float32 [batch].

    Raises:
        ValueError: A weight is missing or does not have the shape that the configuration says.
    """
    graph = _PairGraph(config, weights)
    names = ("input_ids", "token_type_ids", "attention_mask")
    ids, types, mask = (ops.parameter([-1, -1], np.int64, name=name) for name in names)
    states = graph.layers(graph.embed_pair(ids, types), bert.attention_bias(mask), range(config.layers))
    first = ops.gather(states, np.int64(0), np.int64(1))
    return ov.Model([graph.classify(first)], [ids, types, mask], "cross_encoder")


@dataclass(frozen=True)
class _PairGraph(bert.Graph):
    def embed_pair(self, ids: Any, types: Any) -> Any:
        hidden = self.config.hidden
        words = self.weight("embeddings.word_embeddings.weight", self.config.vocabulary, hidden)
        positions = self.weight("embeddings.position_embeddings.weight", self.config.positions, hidden)
        segments = self.weight("embeddings.token_type_embeddings.weight", 2, hidden)
        places = ops.slice(positions, [0], ops.slice(ops.shape_of(ids), [1], [2], [1]), [1], [0])
        tokens = ops.add(ops.gather(words, ids, np.int64(0)), ops.gather(segments, types, np.int64(0)))
        return self.normalise(ops.add(tokens, places), "embeddings.LayerNorm")

    def classify(self, first: Any) -> Any:
        self.weight("classifier.weight", 1, self.config.hidden)  # one label, or there is no score to read
        pooled = ops.tanh(self.linear(first, "pooler.dense"))
        return ops.squeeze(ops.sigmoid(self.linear(pooled, "classifier")), np.array([1], np.int64))


def _padded(pairs: Sequence[Encoding]) -> tuple[Tokens, Tokens, Tokens]:
    ids = np.zeros((len(pairs), max(len(pair.ids) for pair in pairs)), np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for row, pair in enumerate(pairs):
        ids[row, : len(pair.ids)] = pair.ids
        types[row, : len(pair.ids)] = pair.type_ids
        mask[row, : len(pair.ids)] = 1
    return ids, types, mask
