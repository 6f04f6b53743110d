"""`make measure-costs`: what a document costs here, for `aegis capacity`: CPU by stage, bytes by topic, stores, memory.

CPU time and not the clock's: how busy the machine is matters less. What the processes use while nothing happens is
measured first and left out.
"""

import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psutil
import typer
from pydantic import TypeAdapter

from deploy.capacity import Measured, ScaleOut
from schemas.records import DocumentRecord, Extraction, ExtractionRecord
from schemas.topics import EXTRACTIONS
from streams.kafka import read_all
from streams.publisher import Publisher
from tests.bench_pipeline import corpus
from tests.fault.cluster import Cluster

_WARM_UP = 20
_IDLE = 15.0


def main(
    documents: Annotated[int, typer.Option(help="Documents to measure.")] = 200,
    words: Annotated[int, typer.Option(help="Words of a document.")] = 500,
    scale: Annotated[Path, typer.Option(help="The report of `make bench-scale`.")] = Path("build/bench-scale.json"),
    report: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/capacity.json"),
) -> None:
    """Measure and write."""
    scale_out = ScaleOut.model_validate_json(scale.read_text())
    with tempfile.TemporaryDirectory(prefix="aegis-costs-", ignore_cleanup_errors=True) as folder:
        measured = _measured(Path(folder), _texts(documents + _WARM_UP, words), words, scale_out)
    report.write_text(measured.model_dump_json(indent=2) + "\n")
    typer.echo(report.read_text())


def _texts(count: int, words: int) -> list[str]:
    """Texts of as many words, cut from the articles one after another."""
    article_words = [word for text in corpus(count * words // 100).values() for word in re.findall(r"\S+\s*", text)]
    if len(article_words) < count * words:
        raise SystemExit(f"the articles have {len(article_words)} words; ask for fewer documents")
    return ["".join(article_words[place * words : (place + 1) * words]) for place in range(count)]


def _measured(folder: Path, texts: list[str], words: int, scale_out: ScaleOut) -> Measured:
    cluster = Cluster(folder)
    try:
        cluster.start()
        stores = {name: _size(cluster.settings.data_dir / name) for name in ("vectors", "graph")}
        _ingest(cluster, "warm-up", texts[:_WARM_UP])
        idle = _spent(cluster, lambda: time.sleep(_IDLE))
        logs, extractions = _logs(cluster), len(_extractions(cluster))
        begun = time.monotonic()
        spent = _spent(cluster, lambda: _ingest(cluster, "doc", texts[_WARM_UP:]))
        seconds = time.monotonic() - begun
        found = _extractions(cluster)
        chunks = len(found) - extractions
        memory = {name: round(process.memory_full_info().pss / 1e6) for name, process in _processes(cluster).items()}
        topics = {topic: (size - logs[topic]) / chunks for topic, size in _logs(cluster).items()}
    finally:
        cluster.close()
    cpu = {name: max(0.0, used - idle[name] * seconds / _IDLE) / chunks for name, used in spent.items()}
    return Measured(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        at=datetime.now(UTC).date().isoformat(),
        documents=len(texts) - _WARM_UP,
        words_per_document=words,
        chunks_per_document=round(chunks / (len(texts) - _WARM_UP), 2),
        cpu_seconds={name: round(used, 5) for name, used in cpu.items()},
        memory_mb=memory,
        topic_bytes={topic: round(size) for topic, size in topics.items() if size >= 1},
        store_bytes={
            name: round((_size(cluster.settings.data_dir / name) - empty) / len(found))
            for name, empty in stores.items()
        },
        mentions=round(sum(len(one.mentions) for one in found) / len(found), 2),
        relations=round(sum(len(one.relations) for one in found) / len(found), 2),
        entities=round(len({(m.type, m.name) for one in found for m in one.mentions}) / len(found), 2),
        scale_out=scale_out,
    )


def _ingest(cluster: Cluster, prefix: str, texts: list[str]) -> None:
    with Publisher(cluster.servers, cluster.settings) as publisher:
        for number, text in enumerate(texts):
            publisher.publish(DocumentRecord(document_id=f"{prefix}-{number}", text=text))
    if left := cluster.wait_for_no_lag(timeout=900):
        raise SystemExit(f"{left} records were not read in time")


def _spent(cluster: Cluster, work: Callable[[], object]) -> dict[str, float]:
    """CPU seconds of every process during the work, its children included."""
    before = _cpu_seconds(cluster)
    work()
    return {name: used - before[name] for name, used in _cpu_seconds(cluster).items()}


def _cpu_seconds(cluster: Cluster) -> dict[str, float]:
    return {
        name: sum(
            sum(one.cpu_times()[:4])  # of itself and of children that have ended
            for one in (process, *process.children(recursive=True))
        )
        for name, process in _processes(cluster).items()
    }


def _processes(cluster: Cluster) -> dict[str, psutil.Process]:
    started = {name: child.process for name, child in cluster.children.items()} | {"broker": cluster.broker.process}
    return {name: psutil.Process(process.pid) for name, process in started.items() if process is not None}


def _logs(cluster: Cluster) -> dict[str, int]:
    """Bytes of every topic in the broker's log, as they were sent: compressed where they are."""
    sizes: dict[str, int] = {}
    for segment in (cluster.folder / "broker" / "log").glob("aegis.*/*.log"):
        topic = segment.parent.name.rpartition("-")[0]
        sizes[topic] = sizes.get(topic, 0) + segment.stat().st_size
    return sizes


def _extractions(cluster: Cluster) -> list[Extraction]:
    decode = TypeAdapter[ExtractionRecord](ExtractionRecord).validate_json
    records = (decode(record.value or b"") for record in read_all(cluster.servers, [EXTRACTIONS.name]))
    return [record for record in records if isinstance(record, Extraction)]


def _size(path: Path) -> int:
    """Bytes on disk: what is reserved and not written does not count."""
    files = [path, *path.rglob("*")] if path.exists() else []
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


if __name__ == "__main__":
    typer.run(main)
