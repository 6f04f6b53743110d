"""`make bench-extraction`: what extraction costs and how right it is, by rules and by models; is it worse than before?

Each pipeline does each workload in a process of its own, so that its memory is its own. Seconds are this machine's, and
of what else it did meanwhile; ``tests.regressions`` says what is compared with the last run. A run that is worse fails
and leaves the last one to compare with; who accepts what is worse deletes that one's file.
"""

import json
import multiprocessing
import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from schemas.settings import Settings
from tests.extraction_quality import quality
from tests.extraction_report import markdown, plot, tables
from tests.extraction_speed import PIPELINES, Workload, growth, measured
from tests.extraction_texts import Document, documents
from tests.regressions import comparable, regressions

SIZES = {"small": 1, "medium": 10, "large": 50}
BATCHES = (10, 50)
SMALL_ONES = 10
"""Documents that are extracted alone, one after the other."""


def main(
    seconds: Annotated[float, typer.Option(help="CPU seconds; a workload is repeated until it used so many.")] = 5,
    report: Annotated[Path, typer.Option(help="Folder for JSON, Markdown and plots.")] = Path("build/extraction"),
    last: Annotated[Path, typer.Option(help="The run to compare with.")] = Path("build/extraction-last.json"),
) -> None:
    """Measure, print, compare."""
    texts = documents(SIZES["large"])
    run = {"condition": _condition(), "machine": _machine(), "texts": _identity(texts)}
    run |= _speed(texts, seconds) | {"quality": quality()}
    report.mkdir(parents=True, exist_ok=True)
    (report / "extraction.json").write_text(json.dumps(run, indent=2))
    (report / "extraction.md").write_text(markdown(run))
    plot(run, report / "extraction.png")
    for one in tables(run):
        Console().print(one)
    worse = list(_worse(run, last))
    if worse:
        raise SystemExit("\n".join(["worse than the last run:", *worse]))
    last.parent.mkdir(parents=True, exist_ok=True)
    last.write_text(json.dumps(run, indent=2))


def _worse(run: dict[str, Any], path: Path) -> Iterator[str]:
    if not path.exists():
        Console().print(f"no run to compare with; this one is kept as {path}")
    elif not comparable(run, last := json.loads(path.read_text())):
        Console().print(f"{path} is of other texts or another machine, and not compared")
    else:
        yield from regressions(run, last)


def _condition() -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def _machine() -> dict[str, Any]:
    return {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}


def _identity(texts: Sequence[Document]) -> dict[str, Any]:
    chunks = [chunk for text in texts for chunk in text.chunks]
    return {
        "documents": len(texts),
        "words": sum(text.words for text in texts),
        "chunks": len(chunks),
        "sha256": sha256("\0".join(chunks).encode()).hexdigest(),
    }


def _workloads(texts: Sequence[Document]) -> dict[str, Workload]:
    """Documents one by one; many in calls of the shipped size; some in calls of other sizes."""
    alone, some = texts[:SMALL_ONES], texts[: SIZES["medium"]]
    shipped = Settings().extraction.batch.max_records
    return {
        "small": Workload(len(alone), sum(text.words for text in alone), [text.chunks for text in alone]),
        "medium": _batched(some, shipped),
        "large": _batched(texts, shipped),
        **{f"batch {size}": _batched(some, size) for size in BATCHES},
    }


def _batched(texts: Sequence[Document], size: int) -> Workload:
    chunks = [chunk for text in texts for chunk in text.chunks]
    calls = [chunks[first : first + size] for first in range(0, len(chunks), size)]
    return Workload(len(texts), sum(text.words for text in texts), calls)


def _speed(texts: Sequence[Document], seconds: float) -> dict[str, Any]:
    speed = {}
    for (name, workload), pipeline in product(_workloads(texts).items(), PIPELINES):
        one = speed[f"{pipeline}, {name}"] = _alone(pipeline, workload, seconds)
        Console().print(f"{pipeline}, {name}: {one['documents_per_minute']} documents/min", highlight=False)
    return {"speed": speed, "growth": {name: {"exponent": _growth(speed, name)} for name in PIPELINES}}


def _alone(pipeline: str, workload: Workload, seconds: float) -> dict[str, Any]:
    """In a process that neither holds nor inherits what this one has loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(measured, pipeline, workload, least_seconds=seconds).result()


def _growth(speed: dict[str, Any], pipeline: str) -> float:
    """In the yardstick's CPU seconds, as time on the clock would also tell what else the machine did."""
    of_sizes = [speed[f"{pipeline}, {name}"] for name in SIZES]
    words = [one["words"] / one["documents"] * count for one, count in zip(of_sizes, SIZES.values(), strict=True)]
    costs = [one["yardsticks"] * size for one, size in zip(of_sizes, words, strict=True)]
    return round(growth(words, costs), 3)


if __name__ == "__main__":
    typer.run(main)
