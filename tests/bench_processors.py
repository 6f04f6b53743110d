"""`make bench-processors`: every way to run the embedding model that this machine has, side by side in one run.

Rounds are interleaved, so that what else the machine does meets all alike; figures are medians of the rounds.
Absolute figures are this machine's, ratios are the claim.
"""

import gc
import json
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import openvino
import psutil
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from sentence_transformers import SentenceTransformer

from deploy.commands.output import table
from processors import build
from processors.embed import Embedder
from processors.errors import OverloadedError, UnavailableError
from processors.micro_batcher import Priority
from processors.model_folder import model_folder
from processors.runtimes import devices
from processors.runtimes.ollama import OllamaRuntime
from processors.runtimes.openvino import OpenVinoRuntime, computes_bf16
from processors.runtimes.runtime import Runtime
from processors.runtimes.torch import TorchRuntime
from schemas.settings import Ollama, Settings

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

MODEL = model_folder("all-MiniLM-L6-v2")
QUERY = "How does a consumer group of Kafka rebalance when one of its workers is gone?"
FLOP_PER_TOKEN = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # the matrix multiplications of the six layers
CALLERS = 32


@dataclass
class Runner:
    """One way to embed, and what was measured of it."""

    name: str
    embed: Embed
    load_seconds: float
    memory_mb: float
    rounds: list[dict[str, float]] = field(default_factory=list)
    quality: dict[str, float] = field(default_factory=dict)

    def median(self, figure: str) -> float:
        """The median over the rounds."""
        return statistics.median(one[figure] for one in self.rounds)


def main(
    chunks: Annotated[int, typer.Option(help="Chunks of real text, of mixed length.")] = 300,
    rounds: Annotated[int, typer.Option(help="Interleaved repetitions.")] = 3,
    report: Annotated[Path | None, typer.Option(help="Folder for JSON, Markdown and plots.")] = None,
    soak: Annotated[float, typer.Option(help="Instead: minutes of mixed load, to see whether memory grows.")] = 0,
) -> None:
    """Measure and print."""
    texts = corpus(chunks)
    if soak:
        _soak(texts, minutes=soak)
        return
    runners = list(_runners())
    for _ in range(rounds):
        for runner in runners:
            runner.rounds.append(_round(runner, texts))
    reference = next(one for one in runners if one.name == "openvino f32").embed(texts)
    for runner in runners:
        runner.quality = parity(reference, runner.embed(texts))
    found = _summary(texts, runners) | {"shared": shared_use(texts)}
    _print(found)
    if report:
        _write(found, report)


def corpus(count: int) -> list[str]:
    """Chunks of the demo corpus's text files, in an order that mixes lengths."""
    folder = Path(os.environ.get("AEGIS_DATA", "../shared/data")) / "demo_corpus"
    files = sorted(file for kind in ("txt", "md", "rst") for file in folder.rglob(f"*.{kind}"))
    if not files:
        raise SystemExit(f"no text files in {folder}; set AEGIS_DATA")
    splitter = build.build_splitter(Settings(), build.build_embedder(Settings()))
    texts = [
        piece.text for file in files for piece in splitter.split(file.read_text(), markdown=file.suffix == ".md")[:6]
    ]
    np.random.default_rng(7).shuffle(texts)
    return texts[:count]


def parity(reference: Vectors, vectors: Vectors) -> dict[str, float]:
    """Cosine to the reference, and recall of its ten nearest neighbours among the corpus itself."""
    cosines = (reference * vectors).sum(1)
    wanted, found = (_neighbours(one) for one in (reference, vectors))
    shared = [len(set(one) & set(other)) / 10 for one, other in zip(wanted, found, strict=True)]
    return {
        "cosine_min": round(float(cosines.min()), 5),
        "cosine_mean": round(float(cosines.mean()), 5),
        "recall_at_10": round(statistics.mean(shared), 4),
    }


def shared_use(texts: Sequence[str]) -> dict[str, float]:
    """What sharing one loaded model costs: many callers against one, and queries against bulk work."""
    embedder = build.build_embedder(Settings())
    embedder.embed(texts[:32])
    alone = _rate(lambda: embedder.embed(texts), len(texts))
    with ThreadPoolExecutor(CALLERS) as callers:
        together = _rate(lambda: list(callers.map(lambda text: embedder.embed([text]), texts)), len(texts))
    idle = _query_seconds(embedder, pause=0.05, seconds=5)
    with _bulk(embedder, texts) as done:
        begun, before = time.perf_counter(), done[0]
        time.sleep(10)
        unloaded = (done[0] - before) / (time.perf_counter() - begun)
        begun, before = time.perf_counter(), done[0]
        busy = _query_seconds(embedder, pause=0.2, seconds=20)
        loaded = (done[0] - before) / (time.perf_counter() - begun)
    return {
        f"{CALLERS} callers, share of the corpus figure": round(together / alone, 3),
        "query p95 idle, ms": round(_p95(idle) * 1000, 1),
        "query p95 under bulk, ms": round(_p95(busy) * 1000, 1),
        "one bulk pass, ms": round(1000 * _pass_seconds(embedder, texts), 1),
        "bulk kept at 5 queries/s": round(loaded / unloaded, 3),
    }


def _soak(texts: Sequence[str], *, minutes: float) -> None:
    """Bulk work, queries, cancelled and refused requests; memory of each minute as JSON. Fails if it grows."""
    embedder = build.build_embedder(Settings(embedding={"max_queued_tokens": 4096}))
    embedder.embed(texts[:64])
    memory: list[float] = []
    with _bulk(embedder, texts[:20]) as done, ThreadPoolExecutor(8) as callers:
        for _ in range(round(minutes * 6)):
            until = time.monotonic() + 10
            while time.monotonic() < until:
                list(callers.map(lambda text: _impatient(embedder, text), texts[:16]))
                embedder.embed_query(QUERY)
            memory.append(round(psutil.Process().memory_info().rss / 1e6, 1))
    quarter = max(1, len(memory) // 4)  # the first one warms up
    grown = statistics.mean(memory[-quarter:]) / statistics.mean(memory[quarter : 2 * quarter])
    print(json.dumps({"minutes": minutes, "chunks": done[0], "memory_mb": memory, "grown": round(grown, 3)}))
    if grown > 1.05:
        raise SystemExit(f"memory grew by {grown - 1:.1%}")


def _impatient(embedder: Embedder, text: str) -> None:
    """A caller that goes away, or is refused."""
    with suppress(UnavailableError, CancelledError):
        future = embedder.submit([text] * 4, priority=Priority.BULK, caller=text[:4])
        time.sleep(0.02)
        future.cancel()
        future.result()


def _runners() -> Iterator[Runner]:
    yield _loaded("sentence-transformers, arrival order", _sentence_transformers)
    yield _loaded("openvino f32", partial(_ours, partial(OpenVinoRuntime, MODEL.path, precision="f32")))
    if computes_bf16(openvino.Core()):
        yield _loaded("openvino bf16", partial(_ours, partial(OpenVinoRuntime, MODEL.path, precision="bf16")))
    yield _loaded("torch f32, our batches", partial(_ours, partial(TorchRuntime, MODEL, device="cpu")))
    if devices.device_named("auto") == "cuda":
        yield _loaded("torch bf16 on CUDA", partial(_ours, partial(TorchRuntime, MODEL, device="cuda"), 65_536))
    if url := os.environ.get("OLLAMA_URL"):
        yield _loaded("ollama", partial(_ours, partial(OllamaRuntime, Ollama(url=url), dimension=MODEL.dimension)))


def _ours(open_runtime: Callable[[], Runtime], max_batch_tokens: int = 1024) -> Embed:
    embedder = Embedder(MODEL, open_runtime, max_batch_tokens=max_batch_tokens)
    embedder.load()
    return embedder.embed


def _sentence_transformers() -> Embed:
    """As a user would call it: batches of 32 in the order of arrival."""
    model = SentenceTransformer(str(MODEL.path), device="cpu", local_files_only=True)

    def embed(texts: Sequence[str]) -> Vectors:
        batches = [
            model.encode(list(texts[first : first + 32]), batch_size=32, normalize_embeddings=True)
            for first in range(0, len(texts), 32)
        ]
        return np.concatenate(batches)

    return embed


def _loaded(name: str, load: Callable[[], Embed]) -> Runner:
    gc.collect()
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    embed = load()
    embed([QUERY])
    seconds = time.perf_counter() - begun
    embed(["warm " * (length * 8) for length in range(1, 20)])
    memory = (psutil.Process().memory_info().rss - before) / 1e6
    return Runner(name, embed, round(seconds, 2), round(memory))


def _round(runner: Runner, texts: Sequence[str]) -> dict[str, float]:
    singles = []
    for number in range(30):
        begun = time.perf_counter()
        runner.embed([f"{QUERY} {number}"])
        singles.append(time.perf_counter() - begun)
    used = _cpu_seconds()
    corpus_rate = _rate(lambda: runner.embed(texts), len(texts))
    return {
        "single_p50_ms": statistics.median(singles) * 1000,
        "single_p95_ms": _p95(singles) * 1000,
        "batch_32": _rate(lambda: runner.embed(texts[:32]), 32),
        "corpus": corpus_rate,
        "cpu_ms_per_chunk": (_cpu_seconds() - used) / len(texts) * 1000,
    }


def _summary(texts: Sequence[str], runners: Sequence[Runner]) -> dict[str, Any]:
    embedder = build.build_embedder(Settings())
    tokens = embedder.count_tokens(texts)
    tokenising = 1 / _rate(lambda: embedder.count_tokens(texts), 1)
    peak = _matmul_flops()
    base = runners[0]
    rows = {}
    for runner in runners:
        corpus_rate = runner.median("corpus")
        flops = corpus_rate / len(texts) * tokens * FLOP_PER_TOKEN
        rows[runner.name] = {
            **{figure: round(runner.median(figure), 2) for figure in runner.rounds[0]},
            **runner.quality,
            "load_seconds": runner.load_seconds,
            "memory_mb": runner.memory_mb,
            "tokeniser_share": round(tokenising * corpus_rate / len(texts), 4),
            "gflops": round(flops / 1e9, 1),
            "share_of_f32_peak": round(flops / peak, 3),
            "corpus_to_first": round(corpus_rate / base.median("corpus"), 2),
            "single_to_first": round(base.median("single_p50_ms") / runner.median("single_p50_ms"), 2),
        }
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    return {
        "machine": machine,
        "chunks": len(texts),
        "tokens": tokens,
        "f32_matmul_peak_gflops": round(peak / 1e9, 1),
        "runtimes": rows,
    }


def _matmul_flops() -> float:
    """What a large float32 matrix multiplication reaches here."""
    one, other = torch.rand(2048, 2048), torch.rand(2048, 2048)
    torch.mm(one, other)
    seconds = min(_timed(lambda: torch.mm(one, other)) for _ in range(8))
    return 2 * 2048**3 / seconds


def _query_seconds(embedder: Embedder, *, pause: float, seconds: float) -> list[float]:
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        found.append(_timed(lambda: embedder.embed_query(QUERY)))
        time.sleep(pause)
    return found


def _pass_seconds(embedder: Embedder, texts: Sequence[str]) -> float:
    longest = sorted(texts, key=len)[-64:]
    budget = embedder.max_batch_tokens
    return _timed(lambda: embedder.embed(longest)) * budget / embedder.count_tokens(longest)


@contextmanager
def _bulk(embedder: Embedder, texts: Sequence[str]) -> Iterator[list[int]]:
    """Bulk work without end in another thread; the number of chunks done so far."""
    done, stopping = [0], threading.Event()

    def work() -> None:
        while not stopping.is_set():
            for first in range(0, len(texts), 64):
                if stopping.is_set():
                    return
                try:
                    done[0] += len(embedder.embed(texts[first : first + 64]))
                except OverloadedError as refused:
                    time.sleep(refused.retry_after or 0.1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join()


def _neighbours(vectors: Vectors) -> NDArray[np.int64]:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    nearest: NDArray[np.int64] = np.argsort(-similar, 1)[:, :10]
    return nearest


def _rate(work: Callable[[], object], count: int) -> float:
    return count / _timed(work)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[18]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _print(found: dict[str, Any]) -> None:
    figures = list(next(iter(found["runtimes"].values())))
    rows = [(figure, *(row[figure] for row in found["runtimes"].values())) for figure in figures]
    Console().print(table(["figure", *found["runtimes"]], rows))
    Console().print(table(["shared use", "value"], list(found["shared"].items())))
    Console().print(
        f"{found['chunks']} chunks, {found['tokens']} tokens; peak {found['f32_matmul_peak_gflops']} GFLOP/s"
    )


def _write(found: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "processors.json").write_text(json.dumps(found, indent=2))
    names = list(found["runtimes"])
    lines = [f"| figure | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for figure in found["runtimes"][names[0]]:
        lines.append(f"| {figure} | {' | '.join(str(found['runtimes'][name][figure]) for name in names)} |")
    lines += ["", "| shared use | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in found["shared"].items()]
    (folder / "processors.md").write_text("\n".join(lines) + "\n")
    picture, panels = plt.subplots(1, 2, figsize=(11, 4))
    for panel, figure, title in zip(
        panels, ("corpus", "single_p50_ms"), ("corpus, chunks/s", "one text, p50 ms"), strict=True
    ):
        panel.barh(names, [found["runtimes"][name][figure] for name in names])
        panel.set_title(title)
    picture.tight_layout()
    picture.savefig(folder / "processors.png", dpi=110)


if __name__ == "__main__":
    typer.run(main)
