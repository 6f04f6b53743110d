"""The trained part to and from safetensors, in half precision and under BERT's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from training.network import Tagger

_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
WEIGHTS = "ner.safetensors"


def load_layers(tagger: Tagger, weights: Mapping[str, NDArray[Any]], *, first: int) -> None:
    """Take the layers from ``first`` on from an encoder's weights."""
    for number, layer in enumerate(tagger.layers):
        state = {}
        for name in layer.state_dict():
            part, _, kind = name.rpartition(".")
            state[name] = torch.tensor(np.array(weights[f"encoder.layer.{first + number}.{_LAYER[part]}.{kind}"]))
        layer.load_state_dict(state)


def save(tagger: Tagger, folder: Path, *, first: int) -> None:
    """Write the weights as float16."""
    save_half(tagger, folder / WEIGHTS, first=first)


def save_half(network: torch.nn.Module, path: Path, *, first: int) -> None:
    """Write a network's weights as float16; its "layers." are an encoder's from ``first`` on."""
    tensors = {
        bert_name(name, first): value.detach().numpy().astype(np.float16)
        for name, value in network.state_dict().items()
    }
    save_file(tensors, path)


def bert_name(name: str, first: int) -> str:
    """What BERT calls a weight of ours."""
    if not name.startswith("layers."):
        return name
    _, number, part, kind = name.split(".")
    return f"encoder.layer.{first + int(number)}.{_LAYER[part]}.{kind}"
