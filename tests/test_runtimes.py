"""Every runtime gives the same vectors for the same texts, and says clearly why it cannot."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from processors import build
from processors.embed import Embedder
from processors.errors import FatalError, PermanentError, UnavailableError
from processors.micro_batcher import Priority
from processors.model_folder import ModelFolder, model_folder
from processors.runtimes import devices
from processors.runtimes.ollama import OllamaRuntime
from processors.runtimes.openvino import OpenVinoRuntime
from processors.runtimes.rollout import Percentage, RolloutRuntime
from processors.runtimes.runtime import Tokenised, Vectors
from schemas.settings import Ollama, Settings
from tests.ollama_server import OllamaServer, ollama_server

MODEL = model_folder("all-MiniLM-L6-v2")
DIMENSION = 384
TEXTS = [
    "Kafka keeps a log of records.",
    "Lissabon",
    "事件驱动的图检索系统",
    "Der Chunker zerlegt Dokumente in kleine Stücke, die für sich verständlich sind.",
    " ".join(f"word{number} of a long text" for number in range(40)),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(MODEL, lambda: OpenVinoRuntime(MODEL.path, precision="f32"))


@pytest.fixture(scope="module")
def batch(embedder: Embedder) -> list[Tokenised]:
    return [Tokenised(text, embedder.tokenizer.encode(text).ids) for text in TEXTS]


@pytest.fixture(scope="module")
def expected(batch: list[Tokenised]) -> Vectors:
    return OpenVinoRuntime(MODEL.path, precision="f32").encode(batch)


@pytest.fixture
def ollama(embedder: Embedder) -> Iterator[OllamaServer]:
    with ollama_server(embedder.embed) as server:
        yield server


def client(server: OllamaServer, **options: object) -> OllamaRuntime:
    return OllamaRuntime(Ollama.model_validate({"url": server.url, "timeout": 5.0, **options}), dimension=DIMENSION)


def cosines(one: Vectors, other: Vectors) -> Vectors:
    found: Vectors = (one * other).sum(1)
    return found


def test_torch_agrees_with_openvino(batch: list[Tokenised], expected: Vectors) -> None:
    torch_runtime = pytest.importorskip("processors.runtimes.torch", reason="the full lock is not installed")
    vectors = torch_runtime.TorchRuntime(MODEL, device="cpu").encode(batch)
    assert vectors.dtype == np.float32
    assert cosines(vectors, expected).min() > 0.99999


def test_half_precision_stays_close(batch: list[Tokenised], expected: Vectors) -> None:
    torch_runtime = pytest.importorskip("processors.runtimes.torch", reason="the full lock is not installed")
    assert (
        cosines(torch_runtime.TorchRuntime(MODEL, device="cpu", precision="bf16").encode(batch), expected).min() > 0.99
    )


def test_torch_says_why_a_folder_is_no_model(tmp_path: Path) -> None:
    torch_runtime = pytest.importorskip("processors.runtimes.torch", reason="the full lock is not installed")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="does not run on cpu"):
        torch_runtime.TorchRuntime(ModelFolder("broken", tmp_path, 384, 256, 30522), device="cpu")


def test_ollama_gives_the_same_vectors(ollama: OllamaServer, batch: list[Tokenised], expected: Vectors) -> None:
    assert cosines(client(ollama).encode(batch), expected).min() > 0.9999
    assert ollama.requests == [{"model": "all-minilm", "input": TEXTS, "keep_alive": "30m"}]


def test_ollama_is_asked_again_after_an_error(ollama: OllamaServer, batch: list[Tokenised]) -> None:
    ollama.misbehave = [500, "not JSON"]
    assert client(ollama).encode(batch).shape == (len(batch), DIMENSION)
    assert len(ollama.requests) == 3


def test_ollama_overloaded_says_when(ollama: OllamaServer, batch: list[Tokenised]) -> None:
    ollama.misbehave = [429]
    with pytest.raises(UnavailableError, match="429") as raised:
        client(ollama, attempts=1).encode(batch)
    assert raised.value.retry_after == 7


def test_ollama_too_slow_or_gone(ollama: OllamaServer, batch: list[Tokenised]) -> None:
    ollama.misbehave = [0.6]
    with pytest.raises(UnavailableError, match="does not answer"):
        client(ollama, attempts=1, timeout=0.1).encode(batch)
    with pytest.raises(UnavailableError, match="does not answer"):
        client(OllamaServer("http://127.0.0.1:9"), attempts=1).encode(batch)


def test_ollama_refusing_a_text_is_permanent(ollama: OllamaServer, batch: list[Tokenised]) -> None:
    ollama.misbehave = [400]
    with pytest.raises(PermanentError, match="400"):
        client(ollama).encode(batch)
    assert len(ollama.requests) == 1


def test_another_model_never_reaches_the_index(ollama: OllamaServer, batch: list[Tokenised]) -> None:
    ollama.misbehave = ['{"embeddings": [[1.0, 0.0]]}']
    with pytest.raises(FatalError, match="AEGIS_EMBEDDING__OLLAMA__MODEL"):
        client(ollama).encode(batch)


def test_ollama_connections_are_bounded_and_kept(ollama: OllamaServer, batch: list[Tokenised]) -> None:
    runtime = client(ollama, connections=2)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: runtime.encode(batch[:1]), range(24)))
    assert ollama.most_under_way <= 2
    assert len(ollama.connections) <= 2


class _Marked:
    """Vectors that tell who made them."""

    def __init__(self, mark: float) -> None:
        self.mark = mark

    def encode(self, batch: Sequence[Tokenised]) -> Vectors:
        return np.full((len(batch), 2), self.mark, np.float32)


def test_a_rollout_takes_its_share_and_goes_back_at_once() -> None:
    percent = [10]
    runtime = RolloutRuntime(_Marked(0), _Marked(1), lambda: percent[0])
    texts = [Tokenised(f"text {number}", [1]) for number in range(2000)]
    first = runtime.encode(texts)
    assert 0.07 < first[:, 0].mean() < 0.13
    assert (runtime.encode(texts[::-1])[::-1] == first).all()
    for percent[0], share in ((0, 0.0), (100, 1.0)):
        assert runtime.encode(texts)[:, 0].mean() == share


def test_the_rollout_file_is_read_again_and_nonsense_goes_back(tmp_path: Path) -> None:
    file = tmp_path / "percent"
    percent = Percentage(25, file)
    assert percent() == 25
    for place, (text, expected) in enumerate([("40\n", 40), ("forty", 0), ("400", 0), ("100", 100)]):
        file.write_text(text)
        os.utime(file, ns=(place, place))
        assert percent() == expected
    file.unlink()
    assert percent() == 25
    assert Percentage(25, None)() == 25


def test_settings_choose_the_backend(ollama: OllamaServer, tmp_path: Path) -> None:
    """Half of the texts go to Ollama until the file says otherwise; the vectors are the same either way."""
    percent = tmp_path / "percent"
    percent.write_text("50")
    options = {"backend": "ollama", "rollout_file": percent, "ollama": {"url": ollama.url}}
    rolled, native = (build.build_embedder(Settings(embedding=chosen)) for chosen in (options, {}))
    texts = [f"text number {number}" for number in range(40)]
    assert cosines(rolled.embed(texts), native.embed(texts)).min() > 0.9999
    sent = sum(len(request["input"]) for request in ollama.requests)
    assert 8 <= sent <= 32
    percent.write_text("0")
    os.utime(percent, ns=(1, 1))
    rolled.embed(texts)
    assert sum(len(request["input"]) for request in ollama.requests) == sent


def test_ollama_is_asked_over_as_many_connections_as_are_set(ollama: OllamaServer) -> None:
    ollama.misbehave = [0.3, 0.3, 0.3]
    options = {"backend": "ollama", "ollama": {"url": ollama.url, "connections": 3}}
    embedder = build.build_embedder(Settings(embedding=options))
    futures = []
    for _ in range(3):
        futures.append(embedder.submit(["one text"], priority=Priority.BULK))
        time.sleep(0.05)  # long enough to be under way, so that the next one needs a lane of its own
    assert all(future.result(10).shape == (1, DIMENSION) for future in futures)
    assert ollama.most_under_way == 3


def test_a_batch_budget_fits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.build_embedder(Settings()).max_batch_tokens == 1024
    monkeypatch.setattr(devices, "free_memory", lambda: 40_000_000)
    assert 64 < build.build_embedder(Settings()).max_batch_tokens < 512
    assert build.build_embedder(Settings(embedding={"max_batch_tokens": 700})).max_batch_tokens == 700


def test_memory_and_processors_of_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("500000000\n")
    (tmp_path / "memory.current").write_text("400000000\n")
    (tmp_path / "memory.stat").write_text("anon 100000000\ninactive_file 250000000\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert devices.free_memory(tmp_path) == 350_000_000
    assert devices.processors(tmp_path) == 1
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices.free_memory(tmp_path) > 350_000_000
    assert devices.processors(tmp_path) >= 1


def test_a_gpu_without_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_torch", lambda: False)
    assert devices.device_named("auto") == "cpu"
    with pytest.raises(ValueError, match="make full"):
        devices.device_named("cuda")
