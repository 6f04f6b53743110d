"""`python -m tests.soak_orders`: one corpus in many orders, by one worker and by four, must give one graph.

Most orders go through the real splitter, extractor and embedded store without Kafka, each worker in a thread with its
share of the documents. The last ones go through the whole system: broker, node, and as many worker processes.
"""

import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from deploy.commands.documents import wait_for
from deploy.digest import digest_of, digests
from deploy.local.system import started
from deploy.stores import open_graph_store
from processors import build
from processors.chunk import Splitter
from processors.extract import Pipeline
from schemas.records import Chunk, DocumentRecord, Extraction
from schemas.settings import Settings
from streams.publisher import Publisher
from streams.sinks.index import index
from tests.another_worker import another_worker
from tests.bench_pipeline import chunks_of, corpus

_BATCH = 16
Texts = Mapping[str, str]


def in_process(
    names: Sequence[str], texts: Texts, folder: Path, models: tuple[Splitter, Pipeline], workers: int
) -> Any:
    """Index in that order; each worker takes every so manieth document."""
    splitter, extractor = models
    with closing(open_graph_store(Settings(data_dir=folder))) as store:

        def work(worker: int) -> None:
            mine = [chunk for name in names[worker::workers] for chunk in chunks_of(splitter, name, texts[name])]
            for first in range(0, len(mine), _BATCH):
                index(store, "index-graph", _extracted(extractor, mine[first : first + _BATCH]))

        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(work, range(workers)))
        if store.orphans():
            raise SystemExit(f"{store.orphans()} orphans after an order by {workers} workers")
        return vars(digest_of(store.dump()))


def _extracted(extractor: Pipeline, chunks: Sequence[Chunk]) -> list[Extraction]:
    found = extractor.extract([chunk.text for chunk in chunks])
    return [
        Extraction(chunk=chunk, mentions=one.mentions, relations=one.relations)
        for chunk, one in zip(chunks, found, strict=True)
    ]


def through_system(names: Sequence[str], texts: Texts, folder: Path, workers: int) -> Any:
    """Publish in that order to a whole system with so many worker processes."""
    settings = Settings(data_dir=folder, api={"port": 0})
    with started(settings) as system, ExitStack() as children:
        system.wait_until_ready()
        servers = system.running.bootstrap_servers
        for number in range(1, workers):
            children.callback(_another_worker(folder, servers, number).stop)
        with Publisher(servers, settings) as publisher:
            published = [publisher.publish(DocumentRecord(document_id=name, text=texts[name])) for name in names]
            publisher.flush()
            states = wait_for(servers, settings, published)
    if states != {"indexed": len(names)}:
        raise SystemExit(f"not every document was indexed: {states}")
    return vars(digests(settings)["graph"])


def _another_worker(folder: Path, servers: str, number: int) -> Any:
    name = f"worker-{number}"
    child, port = another_worker(name, folder, servers, folder / "logs" / f"{name}.log")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).is_success:
                return child
        except httpx.HTTPError:
            time.sleep(0.5)
    raise SystemExit(f"worker {number} is not ready:\n{child.last_words()}")


def main(
    report: Annotated[Path | None, typer.Option(help="Write the results there as JSON.")] = None,
    documents: Annotated[int, typer.Option(help="Wikipedia articles of Re-DocRED.")] = 100,
    orders: Annotated[int, typer.Option(help="Random orders in all.")] = 20,
    system_orders: Annotated[int, typer.Option(help="As many of them through the whole system.")] = 2,
    workers: Annotated[int, typer.Option(help="Every other order has so many workers, the others one.")] = 4,
) -> None:
    texts, dice, console = corpus(documents), random.Random(1), Console()
    settings = Settings()
    models = build.build_splitter(settings, build.build_embedder(settings)), build.build_extractor(settings)
    runs: list[dict[str, Any]] = []
    for number in range(orders):
        names, of = dice.sample(sorted(texts), len(texts)), workers if number % 2 else 1
        whole_system = number >= orders - system_orders
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            if whole_system:
                found = through_system(names, texts, Path(folder), of)
            else:
                found = in_process(names, texts, Path(folder), models, of)
        runs.append({"order": number, "workers": of, "whole_system": whole_system, **found})
        console.print(f"order {number}: {of} workers, {time.monotonic() - begun:.0f} s, {found['digest'][:16]}")
    distinct = {run["digest"] for run in runs}
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps({"documents": documents, "digests": len(distinct), "runs": runs}, indent=2) + "\n")
    if len(distinct) > 1:
        raise SystemExit(f"{len(distinct)} digests of {orders} orders; there must be one")
    console.print(f"one digest of {orders} orders: {runs[0]['rows']}")


if __name__ == "__main__":
    typer.run(main)
