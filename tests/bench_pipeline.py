"""`make bench-pipeline`: what Kafka costs, how soon a document is searchable, whether it stays as fast.

Two things are compared in one run on the same machine: the whole system, and the same processors and stores called in
a plain loop. Absolute figures are this machine's; the ratio is the claim.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console

from deploy.commands.output import table
from deploy.local.system import System, started
from deploy.stores import open_graph_store, open_vectors
from processors import build
from schemas.ids import content_hash
from schemas.records import Chunk, DocumentRecord, EmbeddedChunk, Extraction
from schemas.settings import Settings
from streams.publisher import Publisher
from streams.sinks.index import index
from streams.status import StatusView
from tests.fault.cluster import Cluster
from tests.fault.faulty_worker import STUBBED
from tests.fault.scenarios import text_of

_BATCH = 128


def main(
    documents: Annotated[int, typer.Option(help="Real documents for the comparison.")] = 750,
    singles: Annotated[int, typer.Option(help="Single documents on an idle system.")] = 50,
    small: Annotated[int, typer.Option(help="Small documents for the flatness figure; 0 leaves it out.")] = 20_000,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure and print."""
    texts = corpus(documents)
    found: dict[str, Any] = {"documents": len(texts)}
    with tempfile.TemporaryDirectory(prefix="aegis-bench-") as folder:
        found["plain loop"] = plain_loop(texts, Path(folder) / "loop")
        found["through Kafka"] = through_kafka(texts, Path(folder) / "system", singles)
    found["ratio"] = round(found["through Kafka"]["chunks_per_second"] / found["plain loop"]["chunks_per_second"], 3)
    if small:
        found["small documents, embedding stubbed"] = flatness(small)
    _print(found)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(found, indent=2))
    if found["ratio"] < 0.85:
        raise SystemExit(f"through Kafka only {found['ratio']} of the plain loop; 0.85 is promised")


def corpus(count: int) -> dict[str, str]:
    """Plain-text articles by name; beyond what there are, again with another last line."""
    folder = Path(os.environ.get("AEGIS_DATA", "../shared/data")) / "demo_corpus" / "wikipedia_redocred_txt"
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise SystemExit(f"no articles in {folder}; set AEGIS_DATA")
    rounds = [(copy, file) for copy in range(-(-count // len(files))) for file in files]
    return {f"{copy}/{file.name}": f"{file.read_text()}\n\nCopy {copy}." for copy, file in rounds[:count]}


def plain_loop(texts: dict[str, str], folder: Path) -> dict[str, Any]:
    """Split, embed, extract and index in one process, without Kafka."""
    settings = Settings(data_dir=folder)
    folder.mkdir()
    embedder, extractor = build.build_embedder(settings), build.build_extractor(settings)
    splitter = build.build_splitter(settings, embedder)
    embedder.load()
    vectors, graph = open_vectors(settings).store, open_graph_store(settings)
    extractor.extract(["A first text warms the rules up."])
    embedder.embed(["A first text warms the model up."])
    begun = time.perf_counter()
    chunks = [chunk for name, text in texts.items() for chunk in chunks_of(splitter, name, text)]
    for first in range(0, len(chunks), _BATCH):
        batch = chunks[first : first + _BATCH]
        embedded = embedder.embed([chunk.contextual_text for chunk in batch])
        found = extractor.extract([chunk.text for chunk in batch])
        pairs = zip(batch, embedded, strict=True)
        index(vectors, "index-vectors", [EmbeddedChunk.of(chunk, vector, embedder.name) for chunk, vector in pairs])
        extractions = [
            Extraction(chunk=chunk, mentions=one.mentions, relations=one.relations)
            for chunk, one in zip(batch, found, strict=True)
        ]
        index(graph, "index-graph", extractions)
    seconds = time.perf_counter() - begun
    vectors.close()
    graph.close()
    return {"chunks": len(chunks), "seconds": round(seconds, 2), "chunks_per_second": round(len(chunks) / seconds, 1)}


def through_kafka(texts: dict[str, str], folder: Path, singles: int) -> dict[str, Any]:
    """The same texts published to a running system; then single documents on it while it is idle."""
    settings = Settings(data_dir=folder, api={"port": 0})
    with started(settings) as system:
        system.wait_until_ready()
        servers = system.running.bootstrap_servers
        view = StatusView(servers, max_documents=100_000)
        view.start()
        with Publisher(servers, settings) as publisher:
            warm_up = {f"warm-up/{name}": text for name, text in list(texts.items())[:60]}
            _publish_and_wait(publisher, view, warm_up)  # the broker's Java compiles while it is new
            begun, used = time.perf_counter(), _cpu_seconds(system)
            chunks, searchable = _publish_and_wait(publisher, view, texts)
            seconds = time.perf_counter() - begun
            cpu = {name: round(total - used[name], 1) for name, total in _cpu_seconds(system).items()}
            latencies = [_searchable_after(publisher, view, number) for number in range(singles)]
            asking = _Asking(system.running.api_url)
            idle = asking.for_seconds(singles / 5)
            for name, text in list(texts.items())[:300]:
                publisher.publish(DocumentRecord(document_id=f"beside/{name}", text=text))
            publisher.flush()
            time.sleep(2)
            busy = asking.for_seconds(singles / 5)
            if view.counts().get("indexed", 0) == len(texts) + len(warm_up) + singles + len(list(texts.items())[:300]):
                raise SystemExit("ingestion ended before the queries did; the figures would mean nothing")
        memory = _memory(system)
        view.stop()
    return {
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "chunks_per_second": round(chunks / seconds, 1),
        "searchable_chunks_per_second": round(chunks / searchable, 1),
        "search_p95_idle_ms": _p95_ms(idle),
        "search_p95_ingesting_ms": _p95_ms(busy),
        "searchable_p50_ms": round(statistics.median(latencies) * 1000),
        "searchable_p95_ms": _p95_ms(latencies),
        "cpu_seconds": cpu,
        "memory_mb": memory,
    }


def flatness(documents: int) -> dict[str, Any]:
    """Documents a second in each window, from an empty index to ``documents``; embedding is stubbed."""
    windows: list[float] = []
    step = max(1, documents // 20)
    with tempfile.TemporaryDirectory(prefix="aegis-bench-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder))
        try:
            (cluster.flags / STUBBED).touch()
            cluster.start()
            view = StatusView(cluster.servers, max_documents=documents + 10)
            view.start()
            with Publisher(cluster.servers, cluster.settings) as publisher:
                for number in range(documents):
                    publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text_of(number, 1)))
            done, at = 0, time.perf_counter()
            while done < documents:
                time.sleep(0.1)
                indexed = view.counts().get("indexed", 0)
                if indexed >= min(done + step, documents):
                    now = time.perf_counter()
                    windows.append(round((indexed - done) / (now - at), 1))
                    done, at = indexed, now
            view.stop()
        finally:
            cluster.close()
    fifth = max(1, len(windows) // 5)
    first, last = statistics.mean(windows[1 : fifth + 1]), statistics.mean(windows[-fifth:])
    return {"documents": documents, "documents_per_second": windows, "last_fifth_to_first": round(last / first, 3)}


def chunks_of(splitter: Any, name: str, text: str) -> list[Chunk]:
    pieces = splitter.split(text, markdown=False)
    return [
        Chunk(
            document_id=name,
            version=1,
            chunk_index=position,
            chunk_count=len(pieces),
            text=piece.text,
            start=piece.start,
            end=piece.end,
            headings=piece.headings,
            content_hash=content_hash(text.encode()),
        )
        for position, piece in enumerate(pieces)
    ]


def _publish_and_wait(publisher: Publisher, view: StatusView, texts: dict[str, str]) -> tuple[int, float]:
    """Number of chunks once all are in both stores, and the seconds until all were in the vector store."""
    begun, searchable = time.perf_counter(), 0.0
    for name, text in texts.items():
        publisher.publish(DocumentRecord(document_id=name, text=text))
    publisher.flush()
    while True:
        statuses = [view.get(name) for name in texts]
        if any(status is not None and status.state == "dead-lettered" for status in statuses):
            raise SystemExit("a document was dead-lettered; the figures would mean nothing")
        if not searchable and all(status is not None and status.searchable_version >= 0 for status in statuses):
            searchable = time.perf_counter() - begun
        if all(status is not None and status.state == "indexed" for status in statuses):
            chunks = sum(status.stages["chunk"].chunk_count or 0 for status in statuses if status is not None)
            return chunks, searchable
        time.sleep(0.1)  # looking must not cost what it looks at


def _searchable_after(publisher: Publisher, view: StatusView, number: int) -> float:
    """Seconds from publishing one small document until it answers queries."""
    time.sleep(0.3)
    begun = time.perf_counter()
    one = publisher.publish(DocumentRecord(document_id=f"single-{number}", text=text_of(number, 1)))
    publisher.flush()
    if not view.wait_until_searchable(one.document_id, one.version, timeout=30):
        raise SystemExit("a single document was not searchable within 30 s")
    return time.perf_counter() - begun


class _Asking:
    """A client that searches five times a second."""

    def __init__(self, api_url: str) -> None:
        self._http = httpx.Client(base_url=api_url, timeout=30)

    def for_seconds(self, seconds: float) -> list[float]:
        """Seconds that each search took."""
        found = []
        for number in range(round(seconds * 5)):
            begun = time.perf_counter()
            query = {"query": f"Who founded the club number {number}, and in which town does it play?"}
            self._http.post("/api/v1/search", json=query).raise_for_status()
            found.append(time.perf_counter() - begun)
            time.sleep(max(0.0, 0.2 - found[-1]))
        return found


def _p95_ms(seconds: Sequence[float]) -> int:
    return round(statistics.quantiles(seconds, n=20)[18] * 1000)


def _memory(system: System) -> dict[str, float]:
    """Proportional set size of every process, its children included."""
    return {
        name: round(sum(one.memory_full_info().pss for one in processes) / 1e6)
        for name, processes in _processes(system).items()
    }


def _cpu_seconds(system: System) -> dict[str, float]:
    """What every process has used so far, its children included."""
    return {
        name: sum(used.user + used.system + used.children_user + used.children_system for used in times)
        for name, processes in _processes(system).items()
        if (times := [one.cpu_times() for one in processes])
    }


def _processes(system: System) -> dict[str, list[psutil.Process]]:
    found = {"supervisor (this process)": [psutil.Process()]}
    for child in system.supervisor.children:
        if child.process is not None:
            process = psutil.Process(child.process.pid)
            found[child.name] = [process, *process.children(recursive=True)]
    return found


def _print(found: dict[str, Any]) -> None:
    loop, kafka = found["plain loop"], found["through Kafka"]
    rows: list[tuple[str, object]] = [
        ("chunks", kafka["chunks"]),
        ("plain loop, chunks/s", loop["chunks_per_second"]),
        ("through Kafka, chunks/s", kafka["chunks_per_second"]),
        ("ratio (at least 0.85)", found["ratio"]),
        ("of these, vectors alone, chunks/s", kafka["searchable_chunks_per_second"]),
        ("search p95 idle, ms", kafka["search_p95_idle_ms"]),
        ("search p95 while ingesting, ms", kafka["search_p95_ingesting_ms"]),
        ("publish to searchable, p50 ms", kafka["searchable_p50_ms"]),
        ("publish to searchable, p95 ms", kafka["searchable_p95_ms"]),
        *((f"CPU seconds of {name}", used) for name, used in kafka["cpu_seconds"].items()),
        *((f"memory of {name}, MB", size) for name, size in kafka["memory_mb"].items()),
    ]
    if flat := found.get("small documents, embedding stubbed"):
        rows.append(("small documents/s, embedding stubbed", flat["documents_per_second"]))
        rows.append(("last fifth to first", flat["last_fifth_to_first"]))
    Console().print(table(["figure", "value"], rows))


if __name__ == "__main__":
    typer.run(main)
