"""The embedder against an independent reference, and the laws of a processor."""

import json
import math
import shutil
import struct
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from processors import bert
from processors.batching import micro_batches
from processors.embed import Embedder
from processors.errors import PermanentError
from processors.micro_batcher import BatchReport, Priority
from processors.model_folder import model_folder
from processors.runtimes.openvino import OpenVinoRuntime

MODEL = model_folder("all-MiniLM-L6-v2")
FOLDER = MODEL.path
TEXTS = [
    "Kafka keeps a log of records.",
    "",
    "Lissabon",
    "Der Chunker zerlegt Dokumente in kleine Stücke, die für sich verständlich sind.",
    "事件驱动的图检索系统",
    "🚀🔥 ship it 👩‍🚀",
    " ".join(f"word{number} of a long text" for number in range(80)),
]

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return opened(FOLDER)


def opened(folder: Path, **options: Any) -> Embedder:
    return Embedder(model_folder(str(folder)), lambda: OpenVinoRuntime(folder, precision="f32"), **options)


# The reference: BERT as in the paper, one text at a time, in float64, written without a look at the graph.
def reference(folder: Path, ids: list[int]) -> Array:
    config = json.loads((folder / "config.json").read_text())
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    weights = safetensors(folder / "model.safetensors")

    def norm(x: Array, name: str) -> Array:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"])
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def dense(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def gelu(x: Array) -> Array:
        tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        share: Array = tanh if config["hidden_act"] == "gelu_new" else np.vectorize(math.erf)(x / math.sqrt(2))
        return x * 0.5 * (1 + share)

    table = "embeddings.{}_embeddings.weight".format
    x = weights[table("word")][ids] + weights[table("position")][: len(ids)] + weights[table("token_type")][0]
    x = norm(x, "embeddings.LayerNorm")
    width = config["hidden_size"] // config["num_attention_heads"]
    for layer in (f"encoder.layer.{index}" for index in range(config["num_hidden_layers"])):
        query, key, value = (dense(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        heads = []
        for head in (slice(start, start + width) for start in range(0, config["hidden_size"], width)):
            scores = np.exp(query[:, head] @ key[:, head].T / math.sqrt(width))
            heads.append(scores / scores.sum(-1, keepdims=True) @ value[:, head])
        attended = dense(np.concatenate(heads, -1), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    pooled: Array = x[0] if pooling["pooling_mode_cls_token"] else x.mean(0)
    unit: Array = pooled / np.linalg.norm(pooled)
    return unit


@cache
def safetensors(path: Path) -> dict[str, Array]:
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[start:end], "<f4").reshape(entry["shape"]).astype(np.float64)
    return tensors


def write_safetensors(path: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(map(np.ndarray.tobytes, tensors.values())))


def test_vectors_equal_the_reference(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = embedder.tokenizer.encode(text).ids
        if len(ids) > embedder.max_tokens:
            ids = [*ids[: embedder.max_tokens - 1], ids[-1]]
        assert vector @ reference(FOLDER, ids) > 0.9999, text


@pytest.mark.parametrize(("activation", "pooling"), [("gelu_new", "cls_token"), ("gelu", "mean_tokens")])
def test_graph_follows_the_configuration(tmp_path: Path, activation: str, pooling: str) -> None:
    folder = small_model(tmp_path, activation=activation, pooling=pooling)
    embedder = opened(folder)
    assert embedder.dimension == 12
    texts = ["a b", "c", "a a b c d d"]
    for text, vector in zip(texts, embedder.embed(texts), strict=True):
        expected = reference(folder, embedder.tokenizer.encode(text).ids)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def small_model(folder: Path, *, activation: str, pooling: str) -> Path:
    """Random weights for 2 layers of 3 heads, and a tokenizer of 8 words."""
    hidden, inner, positions = 12, 20, 16
    random = np.random.default_rng(5)

    def weight(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.5, shape).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": weight(8, hidden),
        "embeddings.position_embeddings.weight": weight(positions, hidden),
        "embeddings.token_type_embeddings.weight": weight(2, hidden),
    }
    shapes: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (hidden,)}
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        shapes |= {f"{layer}.attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
        shapes |= {f"{layer}.attention.output.dense": (hidden, hidden), f"{layer}.output.dense": (hidden, inner)}
        shapes |= {f"{layer}.attention.output.LayerNorm": (hidden,), f"{layer}.output.LayerNorm": (hidden,)}
        shapes |= {f"{layer}.intermediate.dense": (inner, hidden)}
    for name, shape in shapes.items():
        tensors |= {f"{name}.weight": weight(*shape), f"{name}.bias": weight(shape[0])}
    write_safetensors(folder / "model.safetensors", tensors)
    config = {
        "model_type": "bert", "hidden_act": activation, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": 2, "num_attention_heads": 3, "layer_norm_eps": 1e-6, "vocab_size": 8,
        "max_position_embeddings": positions,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    modes = {f"pooling_mode_{mode}": mode == pooling for mode in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    tokenizer = json.loads((FOLDER / "tokenizer.json").read_text())
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]
    tokenizer["model"]["vocab"] = {word: index for index, word in enumerate(words)}
    tokenizer["added_tokens"] = []
    for word in ("[CLS]", "[SEP]"):
        tokenizer["post_processor"]["special_tokens"][word]["ids"] = [words.index(word)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_like_means_near(embedder: Embedder) -> None:
    query = embedder.embed_query("How do I bake bread?")
    bread, broker = embedder.embed(["Knead flour, water and yeast, then bake the loaf.", "The broker elects a leader."])
    assert query @ bread > 0.5
    assert query @ broker < 0.2


def test_batch_equals_one_by_one(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS)
    assert together.shape == (len(TEXTS), embedder.dimension)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(vector, embedder.embed([text])[0], atol=1e-5)
        np.testing.assert_allclose(vector, embedder.embed_query(text), atol=1e-5)


def test_order_of_the_texts_is_kept(embedder: Embedder) -> None:
    forward, backward = embedder.embed(TEXTS), embedder.embed(TEXTS[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)


def test_same_texts_give_the_same_vectors(embedder: Embedder) -> None:
    np.testing.assert_array_equal(embedder.embed(TEXTS), embedder.embed(TEXTS))


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_text_is_cut_at_max_tokens(embedder: Embedder) -> None:
    long = "word " * 254
    np.testing.assert_allclose(embedder.embed_query(long), embedder.embed_query(long * 3), atol=1e-6)
    assert len(embedder.tokenizer.encode(long * 3).ids) == 3 * 254 + 2  # the chunker counts with the same tokenizer


def test_text_that_is_no_unicode_is_a_permanent_error(embedder: Embedder) -> None:
    with pytest.raises(PermanentError, match="no valid Unicode"):
        embedder.embed(["fine", "\ud800"])


def test_micro_batches_keep_to_the_budget() -> None:
    lengths = [3, 200, 7, 7, 90, 2, 400, 8, 8, 1]
    batches = list(micro_batches(lengths, 256))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[position] for position in batch) * len(batch) <= 256


def test_query_does_not_wait_for_the_batch(embedder: Embedder) -> None:
    texts = [f"{number} " + "word " * 250 for number in range(32)]
    bulk = threading.Thread(target=embedder.embed, args=(texts,))
    embedder.load()
    bulk.start()
    time.sleep(0.02)
    for _ in range(2):
        embedder.embed_query("What is a broker?")
    assert bulk.is_alive(), "the queries waited until the batch was done"
    bulk.join()


def test_other_threads_run_during_a_forward_pass(embedder: Embedder) -> None:
    embedder.load()
    started = time.perf_counter()
    bulk = embedder.submit(["word " * 250] * 16, priority=Priority.BULK)
    submitted = time.perf_counter() - started
    ticks = 0
    while not bulk.done():
        time.sleep(0.001)
        ticks += 1
    assert ticks > 20
    assert submitted < time.perf_counter() - started - submitted, "submitting waits for nothing"


def test_a_cancelled_submission_is_not_embedded() -> None:
    watch = Watch()
    embedder = opened(FOLDER, max_batch_tokens=256, observe=watch)
    future = embedder.submit(["word " * 250] * 40, priority=Priority.BULK)
    assert future.cancel()
    assert embedder.embed_query("short").shape == (384,)
    assert sum(report.items for report in watch.reports) < 5
    assert watch.tokenisings == 2


def test_tokens_are_counted_as_the_model_reads_them(embedder: Embedder) -> None:
    assert embedder.count_tokens(["", "word", "word " * 5000]) == 2 + 3 + embedder.max_tokens


class Watch:
    """Notes what an embedder says of itself."""

    def __init__(self) -> None:
        self.reports: list[BatchReport] = []
        self.tokenisings = 0

    def batch(self, report: BatchReport) -> None:
        self.reports.append(report)

    def tokenised(self, seconds: float) -> None:
        assert seconds > 0
        self.tokenisings += 1


def test_threads_may_share_an_embedder_from_the_start() -> None:
    embedder = opened(FOLDER)
    vectors: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: vectors.append(embedder.embed(TEXTS[:5]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(vectors) == 4
    for other in vectors[1:]:
        np.testing.assert_allclose(vectors[0], other, atol=1e-5)  # they share passes, which moves the last bits


def test_unknown_model_is_refused(tmp_path: Path) -> None:
    assert model_folder(str(FOLDER)).path == FOLDER
    for name in ("no-such-model", str(tmp_path)):
        with pytest.raises(ValueError, match="unknown embedding model"):
            model_folder(name)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("model_type", "xlm-roberta", "model_type is 'xlm-roberta'"),
        ("hidden_act", "silu", "hidden_act is 'silu'"),
        ("num_attention_heads", 7, "7 heads do not divide"),
        ("max_position_embeddings", 128, "not between 3 and 128"),
        ("hidden_size", None, "does not say hidden_size"),
    ],
)
def test_configuration_that_cannot_be_built_is_refused(tmp_path: Path, field: str, value: Any, complaint: str) -> None:
    folder = copied(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {field: value}
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    with pytest.raises(ValueError, match=complaint):
        opened(folder).load()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        opened(folder).load()
    (folder / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match="cut short"):
        opened(folder).load()
    config = bert.config_from_folder(folder)
    with pytest.raises(ValueError, match=r"hold no embeddings\.word_embeddings\.weight"):
        bert.build(config, {})


def copied(folder: Path) -> Path:
    """The packaged model without its weights."""
    ignore = shutil.ignore_patterns("*.safetensors", "*.md", "vocab.txt")
    return Path(shutil.copytree(FOLDER, folder / "model", ignore=ignore))
