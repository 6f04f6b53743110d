"""The cross-encoder against a forward pass written out in numpy, on a small model of random weights."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from processors.errors import PermanentError
from processors.rerankers import Reranker
from processors.rerankers.cross_encoder import CrossEncoderReranker
from tests.test_embed import write_safetensors

Weights = dict[str, NDArray[np.float32]]

HIDDEN, HEADS, LAYERS, INNER, POSITIONS = 12, 3, 2, 20, 24
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "broker", "topic", "offset", "lag", "bread"]
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "layer_norm_eps": 1e-6, "vocab_size": len(WORDS),
    "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
}  # fmt: skip
PASSAGES = ["broker topic offset", "bread", "", "lag lag lag unheard broker", "offset " * 50, "bread"]


@pytest.fixture(scope="module")
def weights() -> Weights:
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"bert.embeddings.LayerNorm": (HIDDEN,)}
    for layer in (f"bert.encoder.layer.{index}" for index in range(LAYERS)):
        shapes |= {f"{layer}.attention.self.{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")}
        shapes |= {f"{layer}.attention.output.dense": (HIDDEN, HIDDEN), f"{layer}.output.dense": (HIDDEN, INNER)}
        shapes |= {f"{layer}.attention.output.LayerNorm": (HIDDEN,), f"{layer}.output.LayerNorm": (HIDDEN,)}
        shapes |= {f"{layer}.intermediate.dense": (INNER, HIDDEN)}
    shapes |= {"bert.pooler.dense": (HIDDEN, HIDDEN), "classifier": (1, HIDDEN)}
    tables = {"word": len(WORDS), "position": POSITIONS, "token_type": 2}
    drawn: dict[str, tuple[int, ...]] = {}
    for name, rows in tables.items():
        drawn[f"bert.embeddings.{name}_embeddings.weight"] = (rows, HIDDEN)
    for name, shape in shapes.items():
        drawn |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in drawn.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Path:
    return write_model(tmp_path_factory.mktemp("cross_encoder"), weights)


def write_model(folder: Path, weights: Weights, **config: object) -> Path:
    write_safetensors(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def reference(weights: Weights, query: list[int], passage: list[int]) -> float:
    """Devlin et al. 2019, one pair at a time, in float64; token ids without the special ones."""

    def dense(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        product: NDArray[np.float64] = x @ weights[f"{name}.weight"].T
        return product + weights[f"{name}.bias"]

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    ids = [2, *query, 3, *passage, 3]
    types = [0] * (len(query) + 2) + [1] * (len(passage) + 1)
    table = "bert.embeddings.{}_embeddings.weight".format
    x = weights[table("word")][ids] + weights[table("position")][: len(ids)] + weights[table("token_type")][types]
    x = norm(x.astype(float), "bert.embeddings.LayerNorm")
    for layer in (f"bert.encoder.layer.{index}" for index in range(LAYERS)):
        queries, keys, values = (
            dense(x, f"{layer}.attention.self.{name}").reshape(len(ids), HEADS, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        attention = np.exp(queries @ keys.swapaxes(1, 2) / math.sqrt(HIDDEN // HEADS))
        attention /= attention.sum(-1, keepdims=True)
        attended = (attention @ values).swapaxes(0, 1).reshape(len(ids), HIDDEN)
        x = norm(x + dense(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    logit = float(dense(np.tanh(dense(x[:1], "bert.pooler.dense")), "classifier")[0, 0])
    return 1 / (1 + math.exp(-logit))


def ids(text: str) -> list[int]:
    return [WORDS.index(word) if word in WORDS else 1 for word in text.split()]


def test_scores_equal_the_reference(folder: Path, weights: Weights) -> None:
    reranker: Reranker = CrossEncoderReranker(folder, name="small")
    scores = reranker.rerank("topic lag", PASSAGES)
    assert scores.dtype == np.float32
    room = POSITIONS - 3 - 2  # three special tokens, two of the query
    expected = [reference(weights, ids("topic lag"), ids(passage)[:room]) for passage in PASSAGES]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores) > 0.002


def test_query_and_passage_are_told_apart(folder: Path) -> None:
    reranker = CrossEncoderReranker(folder, name="small")
    assert abs(reranker.rerank("topic", ["lag"])[0] - reranker.rerank("lag", ["topic"])[0]) > 2e-4


def test_batches_change_nothing(folder: Path) -> None:
    together = CrossEncoderReranker(folder, name="small").rerank("broker", PASSAGES)
    alone = CrossEncoderReranker(folder, name="small", max_batch_tokens=1)
    np.testing.assert_allclose(alone.rerank("broker", PASSAGES), together, atol=1e-5)
    assert together[1] == together[5]


def test_no_passages_no_scores(folder: Path) -> None:
    assert CrossEncoderReranker(folder, name="small").rerank("broker", []).shape == (0,)


def test_text_that_is_no_unicode_is_a_permanent_error(folder: Path) -> None:
    with pytest.raises(PermanentError, match="no valid Unicode"):
        CrossEncoderReranker(folder, name="small").rerank("broker", ["\ud800"])


def test_model_that_is_no_such_classifier_is_refused(tmp_path: Path, weights: Weights) -> None:
    two_labels = weights | {"classifier.weight": np.zeros((2, HIDDEN), np.float32)}
    with pytest.raises(ValueError, match=r"classifier\.weight is \[2, 12\], not \[1, 12\]"):
        CrossEncoderReranker(write_model(tmp_path, two_labels), name="x").load()
    with pytest.raises(ValueError, match="model_type is 'roberta'"):
        CrossEncoderReranker(write_model(tmp_path, weights, model_type="roberta"), name="x")
    without = {name: weight for name, weight in weights.items() if "pooler" not in name}
    with pytest.raises(ValueError, match=r"hold no pooler\.dense\.weight"):
        CrossEncoderReranker(write_model(tmp_path, without), name="x").load()
    (tmp_path / "config.json").write_text('{"hidden_act": "gelu"}')
    with pytest.raises(ValueError, match="does not say 'num_hidden_layers'"):
        CrossEncoderReranker(tmp_path, name="x")
