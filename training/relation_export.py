"""The relation classifier's trained part to and from safetensors, in half precision and under BERT's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from processors.relations.graph import FROZEN
from training.relation_network import Classifier

WEIGHTS = "relations.safetensors"

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


def load(classifier: Classifier, weights: Mapping[str, NDArray[Any]], prefix: str = "") -> None:
    """Take the weights whose name in torch begins with the prefix; "layers." are an encoder's upper layers."""
    names = {name: _name(name) for name in classifier.state_dict() if name.startswith(prefix)}
    state = {name: torch.tensor(np.array(weights[bert], np.float32)) for name, bert in names.items()}
    classifier.load_state_dict(state, strict=not prefix)


def save(classifier: Classifier, folder: Path) -> None:
    """Write the weights as float16."""
    tensors = {
        _name(name): value.detach().numpy().astype(np.float16) for name, value in classifier.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)


def _name(name: str) -> str:
    if not name.startswith("layers."):
        return name
    _, number, part, kind = name.split(".")
    return f"encoder.layer.{FROZEN + int(number)}.{_LAYER[part]}.{kind}"
