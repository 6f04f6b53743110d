"""The relation classifier's trained part to and from safetensors, in half precision and under BERT's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from processors.relations.graph import FROZEN
from training.export import bert_name, save_half
from training.relation_network import Classifier

WEIGHTS = "relations.safetensors"


def load(classifier: Classifier, weights: Mapping[str, NDArray[Any]], prefix: str = "") -> None:
    """Take the weights whose name in torch begins with the prefix; "layers." are an encoder's upper layers."""
    names = {name: bert_name(name, FROZEN) for name in classifier.state_dict() if name.startswith(prefix)}
    state = {name: torch.tensor(np.array(weights[bert], np.float32)) for name, bert in names.items()}
    classifier.load_state_dict(state, strict=not prefix)


def save(classifier: Classifier, folder: Path) -> None:
    """Write the weights as float16."""
    save_half(classifier, folder / WEIGHTS, first=FROZEN)
