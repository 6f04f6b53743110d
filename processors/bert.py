"""A BERT sentence encoder as an OpenVINO graph, built straight from the weights: no torch, no conversion step.

Devlin et al. 2019, with the post-layer-norm encoder of the original. Pooling (mean or first token) and L2
normalisation belong to the graph, so that what comes out is the embedding.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

Weights = Mapping[str, NDArray[Any]]
Pooling = Literal["mean", "cls"]

_ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "gelu": lambda x: ops.gelu(x, "erf"),
    "gelu_new": lambda x: ops.gelu(x, "tanh"),
    "gelu_pytorch_tanh": lambda x: ops.gelu(x, "tanh"),
    "relu": ops.relu,
}
_DTYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}
_MASKED = np.float32(-1e9)  # exp of it is 0, and adding it overflows nothing


@dataclass(frozen=True)
class BertConfig:
    """What decides the shape of the graph."""

    layers: int
    heads: int
    hidden: int
    positions: int
    vocabulary: int
    activation: str
    epsilon: float
    pooling: Pooling


def config_from_folder(folder: Path) -> BertConfig:
    """Read ``config.json`` and ``1_Pooling/config.json`` of a sentence-transformers folder.

    Raises:
        ValueError: A file is missing, or it describes a model that is not such an encoder.
    """
    return encoder_config(folder, pooling=_pooling(read_json(folder / "1_Pooling" / "config.json"), folder))


def encoder_config(folder: Path, *, pooling: Pooling) -> BertConfig:
    """Read ``config.json`` of a BERT. Raises as ``config_from_folder``."""
    path = folder / "config.json"
    config = read_json(path)
    expected = {"model_type": "bert", "position_embedding_type": "absolute"}
    for field, value in expected.items():
        if config.get(field, value) != value:
            raise ValueError(
                f"{path}: {field} is {config[field]!r}; without torch (`make full`) only {value!r} can be built"
            )
    if config.get("hidden_act") not in _ACTIVATIONS:
        raise ValueError(
            f"{path}: hidden_act is {config.get('hidden_act')!r}; only {', '.join(_ACTIVATIONS)} can be built"
        )
    try:
        bert = BertConfig(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["hidden_size"],
            positions=config["max_position_embeddings"],
            vocabulary=config["vocab_size"],
            activation=config["hidden_act"],
            epsilon=config["layer_norm_eps"],
            pooling=pooling,
        )
    except KeyError as error:
        raise ValueError(f"{path} does not say {error}") from error
    if bert.hidden % bert.heads:
        raise ValueError(f"{path}: {bert.heads} heads do not divide hidden_size {bert.hidden}")
    return bert


def _pooling(config: Mapping[str, Any], folder: Path) -> Pooling:
    chosen = sorted(name for name, value in config.items() if name.startswith("pooling_mode_") and value is True)
    if chosen == ["pooling_mode_mean_tokens"]:
        return "mean"
    if chosen == ["pooling_mode_cls_token"]:
        return "cls"
    raise ValueError(f"{folder}/1_Pooling/config.json: {chosen or 'no pooling'}; only mean or cls can be built")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder.

    Raises:
        ValueError: The file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"not a model folder: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")  # noqa: TRY004  # the file is wrong, not the call
    return content


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors by name, mapped and not read: 8 bytes of header length, a JSON header, then the raw tensors.

    Raises:
        ValueError: The file is missing, damaged, or holds a type that cannot be mapped.
    """
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="c")
        (length,) = struct.unpack("<Q", raw[:8].tobytes())
        header = json.loads(raw[8 : 8 + length].tobytes())
    except (OSError, ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    header.pop("__metadata__", None)
    return {name: _tensor(raw[8 + length :], entry, f"{path}: {name}") for name, entry in header.items()}


def verified_safetensors(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """As ``read_safetensors``, of a file that has this SHA-256.

    Raises:
        ValueError: It is damaged, or another one.
    """
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(f"{path} is damaged or of another version: its sha256 is {found}, not {sha256}")
    return read_safetensors(path)


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _tensor(content: NDArray[np.uint8], entry: Mapping[str, Any], name: str) -> NDArray[Any]:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} is {entry['dtype']}; only {', '.join(_DTYPES)} can be read")
    start, end = entry["data_offsets"]
    if end > len(content):
        raise ValueError(f"{name} lies beyond the end of the file; it was cut short")
    return content[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def build(config: BertConfig, weights: Weights) -> ov.Model:
    """The encoder: int64 ``input_ids`` and ``attention_mask`` [batch, tokens] in, float32 [batch, hidden] out.

    The embeddings have unit length. Every row of the mask has a 1.

    Raises:
        ValueError: A weight is missing or does not have the shape that the configuration says.
    """
    graph = Graph(config, weights)
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
    states = graph.layers(graph.embed(ids), attention_bias(mask), range(config.layers))
    pooled = graph.pool(states, ops.convert(mask, "f32"))
    unit = ops.normalize_l2(pooled, np.array([1], np.int64), 1e-12, "max")
    return ov.Model([unit], [ids, mask], "bert")


def lower_layers(config: BertConfig, weights: Weights, count: int) -> ov.Model:
    """The first layers: int64 ``input_ids`` and ``attention_mask`` [texts, pieces] in, states [.., hidden] out."""
    graph = Graph(config, weights)
    ids, mask = (ops.parameter([-1, -1], np.int64, name=name) for name in ("input_ids", "attention_mask"))
    states = graph.layers(graph.embed(ids), attention_bias(mask), range(count))
    return ov.Model([states], [ids, mask], "lower")


def attention_bias(mask: Any) -> Any:
    """Added to the attention's scores: nothing, or what leaves padding out."""
    return ops.multiply(ops.subtract(np.float32(1), ops.unsqueeze(ops.convert(mask, "f32"), [1, 2])), _MASKED)


@dataclass(frozen=True)
class Graph:
    """The parts of a BERT, each a function from nodes to nodes."""

    config: BertConfig
    weights: Weights

    def embed(self, ids: Any) -> Any:
        """Token ids to states [batch, tokens, hidden]."""
        hidden = self.config.hidden
        words = self.weight("embeddings.word_embeddings.weight", self.config.vocabulary, hidden)
        positions = self.weight("embeddings.position_embeddings.weight", self.config.positions, hidden)
        first_type = self.weights["embeddings.token_type_embeddings.weight"][:1]  # one text: every token's type is 0
        length = ops.slice(ops.shape_of(ids), [1], [2], [1])
        places = ops.slice(_constant(positions + first_type), [0], length, [1], [0])
        states = ops.add(ops.gather(_constant(words), ids, np.int64(0)), places)
        return self.normalise(states, "embeddings.LayerNorm")

    def layers(self, states: Any, bias: Any, numbers: Iterable[int]) -> Any:
        """The encoder's layers of these numbers, one after the other."""
        for number in numbers:
            states = self.layer(states, bias, f"encoder.layer.{number}.")
        return states

    def layer(self, states: Any, bias: Any, prefix: str) -> Any:
        """One layer of the encoder; ``bias`` is added to the attention's scores."""
        attended = self.attend(states, bias, prefix + "attention.self.")
        attended = self.linear(attended, prefix + "attention.output.dense")
        states = self.normalise(ops.add(states, attended), prefix + "attention.output.LayerNorm")
        inner = _ACTIVATIONS[self.config.activation](self.linear(states, prefix + "intermediate.dense"))
        outer = self.linear(inner, prefix + "output.dense")
        return self.normalise(ops.add(states, outer), prefix + "output.LayerNorm")

    def attend(self, states: Any, bias: Any, prefix: str) -> Any:
        """Multi-head self-attention, before its output projection."""
        query, key, value = (self.split_heads(self.linear(states, prefix + name)) for name in ("query", "key", "value"))
        attended = ops.scaled_dot_product_attention(query, key, value, bias)
        return ops.reshape(ops.transpose(attended, [0, 2, 1, 3]), [0, 0, self.config.hidden], True)

    def split_heads(self, states: Any) -> Any:
        """[batch, tokens, hidden] to [batch, heads, tokens, hidden / heads]."""
        heads = self.config.heads
        split = ops.reshape(states, [0, 0, heads, self.config.hidden // heads], True)
        return ops.transpose(split, [0, 2, 1, 3])

    def linear(self, states: Any, name: str) -> Any:
        """A dense layer by its name in the weights."""
        weight = self.weight(f"{name}.weight", -1, -1)
        bias = self.weight(f"{name}.bias", weight.shape[0])
        return ops.add(ops.matmul(states, _constant(weight), False, True), _constant(bias))

    def normalise(self, states: Any, name: str) -> Any:
        """Layer normalisation."""
        hidden = self.config.hidden
        scale, shift = self.weight(f"{name}.weight", hidden), self.weight(f"{name}.bias", hidden)
        centred = ops.mvn(states, np.array([-1], np.int64), True, self.config.epsilon, "inside_sqrt")
        return ops.add(ops.multiply(centred, _constant(scale)), _constant(shift))

    def rows(self, table: str, size: int, numbers: Any) -> Any:
        """Rows of an embedding table of ``size`` rows, by their numbers."""
        return ops.gather(_constant(self.weight(f"{table}.weight", size, -1)), numbers, np.int64(0))

    def pool(self, states: Any, seen: Any) -> Any:
        """States to one vector per text: [batch, hidden]."""
        if self.config.pooling == "cls":
            return ops.gather(states, np.int64(0), np.int64(1))
        total = ops.reduce_sum(ops.multiply(states, ops.unsqueeze(seen, [2])), np.array([1], np.int64))
        return ops.divide(total, ops.reduce_sum(seen, np.array([1], np.int64), True))

    def weight(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A weight as float32; -1 in the shape stands for any size."""
        weight = self.weights.get(name, self.weights.get(f"bert.{name}"))
        if weight is None:
            raise ValueError(f"the weights hold no {name}")
        if len(shape) != weight.ndim or any(
            want not in (-1, got) for want, got in zip(shape, weight.shape, strict=True)
        ):
            raise ValueError(f"the weight {name} is {list(weight.shape)}, not {list(shape)}")
        return weight.astype(np.float32, copy=False)


def _constant(weight: NDArray[np.float32]) -> Any:
    return ops.constant(weight, np.float32, shared_memory=True)
