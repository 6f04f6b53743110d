"""Search under 1 to 100 users who never pause, first on an idle system, then while it ingests (`make load`).

Users, API, workers and broker share this machine: the figures are its own, the ratio of both phases is what counts.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from api.client import Aegis
from deploy.commands.demo import CORPUS
from deploy.local.system import System, started
from schemas.records import DocumentRecord
from schemas.settings import Settings
from streams.publisher import Publisher
from tests.waiting import until

QUESTIONS = [one["question"] for one in json.loads((CORPUS.parent / "corpus_questions.json").read_text())]
_BACKLOG = 200  # documents that wait while the system ingests


def main() -> None:
    """Measure, print, and fail where a request was answered with an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 10, 50, 100])
    parser.add_argument("--seconds", type=int, default=30, help="of each run")
    parser.add_argument("--report", type=Path, default=Path("build/load.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aegis-load-") as folder:
        settings = Settings(data_dir=Path(folder), api={"port": 0})
        with started(settings) as system:
            system.wait_until_ready()
            rows = measured(system, settings, users=options.users, seconds=options.seconds)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(rows, indent=2))
    json.dump(rows, sys.stdout, indent=2)
    if any(row["errors"] for row in rows):
        raise SystemExit("there were errors")


def measured(system: System, settings: Settings, *, users: Sequence[int], seconds: int) -> list[dict[str, Any]]:
    """A row per number of users and phase."""
    url, texts = system.running.api_url, [path.read_text() for path in sorted(CORPUS.glob("*.txt"))]
    with Publisher(system.running.bootstrap_servers, settings) as publisher, Aegis(url) as aegis:
        published = [
            publisher.publish(DocumentRecord(document_id=f"idle/{number}", text=text))
            for number, text in enumerate(texts)
        ]
        publisher.flush()
        for one in published:
            aegis.wait_until_searchable(one.document_id, one.version, within=600)
        until(lambda: not any(group["records"] for group in aegis.lag()), within=600, pause=0.5)
        rows: list[dict[str, Any]] = [{"phase": "one after another", **_overhead(url)}]
        rows += [{"phase": "idle", **_run(url, count, seconds)} for count in users]
        with _ingesting(publisher, aegis, texts):
            rows += [{"phase": "ingesting", **_run(url, count, seconds)} for count in users]
    return rows


@contextmanager
def _ingesting(publisher: Publisher, aegis: Aegis, texts: Sequence[str]) -> Iterator[None]:
    """Keep documents waiting until the block ends."""
    over = threading.Event()

    def ingest() -> None:
        for number, text in enumerate(itertools.cycle(texts)):
            if over.is_set():
                return
            publisher.publish(DocumentRecord(document_id=f"bulk/{number}", text=f"{text}\n\nCopy {number}."))
            if number % 50 == 49:
                publisher.flush()
                while _waiting(aegis) > _BACKLOG and not over.wait(0.5):
                    pass

    thread = threading.Thread(target=ingest)
    thread.start()
    time.sleep(10)
    try:
        yield
    finally:
        over.set()
        thread.join(120)


def _waiting(aegis: Aegis) -> int:
    return next(group["records"] or 0 for group in aegis.lag() if group["stage"] == "chunk")


def _overhead(url: str) -> dict[str, Any]:
    """What HTTP, validation, threads and JSON add to embedding, stores, graph and arranging, of single searches."""
    inside, outside = [], []
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(200):
            body = {"query": f"{QUESTIONS[number % len(QUESTIONS)]} {number}", "limit": 10}
            begun = time.perf_counter()
            answer = http.post("/api/v1/search", json=body).raise_for_status().json()
            outside.append((time.perf_counter() - begun) * 1000)
            inside.append(sum(answer["timings"].values()))
    added = [whole - part for whole, part in zip(outside, inside, strict=True)]
    return {
        "searches": len(outside),
        "errors": 0,
        **{f"p{percent}_ms": round(float(np.percentile(outside, percent)), 1) for percent in (50, 95, 99)},
        **{f"processors_p{percent}_ms": round(float(np.percentile(inside, percent)), 1) for percent in (50, 95)},
        **{f"added_p{percent}_ms": round(float(np.percentile(added, percent)), 1) for percent in (50, 95)},
    }


def _run(url: str, users: int, seconds: int) -> dict[str, Any]:
    """Locust by itself, as it patches the process that imports it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "--headless", "--json", "--only-summary", "--loglevel", "ERROR"),
            *("--locustfile", str(Path(__file__).with_name("load_users.py")), "--host", url, "--reset-stats"),
            *("--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 120,
    )
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
    if "search" not in entries:
        raise RuntimeError(f"no search was answered in {seconds} s: {done.stderr[-1000:]}")
    searches, refused = entries["search"], entries.get("refused with 429", {"num_requests": 0})
    times = {float(ms): count for ms, count in searches["response_times"].items()}
    return {
        "users": users,
        "searches": searches["num_requests"],
        "per_second": round(searches["num_requests"] / seconds, 1),
        **{f"p{percent}_ms": _percentile(times, percent / 100) for percent in (50, 95, 99)},
        "errors": searches["num_failures"],
        "refused_429": refused["num_requests"],
    }


def _percentile(times: Mapping[float, int], share: float) -> float | None:
    """From a histogram of milliseconds."""
    wanted, seen = share * sum(times.values()), 0
    for ms, count in sorted(times.items()):
        seen += count
        if seen >= wanted:
            return ms
    return None


if __name__ == "__main__":
    main()
