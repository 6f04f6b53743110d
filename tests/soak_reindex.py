"""`aegis reindex` under load: queries at a steady rate, updates, deletes, a kill -9 if asked; nothing fails or is lost.

    python -m tests.soak_reindex --documents 2000 --report build/soak-reindex.json

Exit status 1 if a query failed or a document is not as it should be.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.commands.documents import wait_for
from deploy.generations import LIVE, in_effect
from deploy.local.system import started
from deploy.stores import open_graphs, open_vectors
from schemas.records import DocumentRecord
from schemas.settings import Settings
from streams.publisher import Publisher
from tests.asking import Asking
from tests.test_embed import small_model

_EVERY = 50  # one document in so many is updated, and one deleted, while the index is made


def main() -> None:
    """Run it and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--per-second", type=float, default=5.0)
    parser.add_argument("--chunk-size", type=int, default=100)
    parser.add_argument(
        "--light", action="store_true", help="A tiny model of random weights and names by rules: the passage alone."
    )
    parser.add_argument("--kill", action="store_true", help="Kill the first reindex and start it again.")
    parser.add_argument("--report", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.light:
            os.environ |= light(Path(folder) / "model")
        report = soak(Path(folder) / "system", arguments)
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(json.dumps(report, indent=2))
    sys.stdout.write(f"{json.dumps(report, indent=2)}\n")
    sys.exit(bool(report["failed_queries"] or report["wrong_answers"] or report["lost"] or report["stale"]))


def light(model: Path) -> dict[str, str]:
    """Settings with which models take next to no time."""
    model.mkdir()
    small_model(model, activation="gelu", pooling="mean_tokens")
    names, relations = {"AEGIS_EXTRACTION__NAMES": "rules"}, {"AEGIS_EXTRACTION__RELATIONS": "none"}
    return names | relations | {"AEGIS_EMBEDDING__MODEL": str(model)}


def soak(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What happened."""
    documents: int = arguments.documents
    settings = Settings(data_dir=folder, api={"port": 0})
    with started(settings) as system:
        system.wait_until_ready(timeout=600)
        with Publisher(system.running.bootstrap_servers, settings) as publisher:
            published = [publisher.publish(document(number)) for number in range(documents)]
            publisher.flush()
            wait_for(system.running.bootstrap_servers, settings, published)
            asked = {word_of(number): f"doc-{number}" for number in range(documents) if number % _EVERY > 1}
            with Asking(system.running.api_url, asked, arguments.per_second) as asking:
                began = time.monotonic()
                reindexed = reindexed_under_changes(folder, publisher, arguments)
                wall_seconds, switched = time.monotonic() - began, (folder / LIVE).stat().st_ctime
                late = [publisher.publish(DocumentRecord(document_id="late", text=f"{word_of(documents)} came late."))]
                publisher.flush()
                wait_for(system.running.bootstrap_servers, in_effect(settings), late)
    expected, stores = expectations(documents), held(in_effect(settings))
    lost = sorted({id_ for store in stores for id_ in expected if id_ not in store})
    stale = sorted({id_ for store in stores for id_, text in store.items() if expected.get(id_) != text})
    took = [seconds for _, seconds in asking.answered]
    return {
        "documents": documents,
        "light": arguments.light,
        "killed": arguments.kill,
        "wall_seconds": round(wall_seconds, 1),
        "report": reindexed,
        "queries": len(asking.answered),
        "queries_per_second": arguments.per_second,
        "failed_queries": asking.failed,
        "wrong_answers": asking.wrong,
        "query_seconds_median": round(statistics.median(took), 3),
        "query_seconds_p99": round(sorted(took)[len(took) * 99 // 100], 3),
        "query_seconds_max": round(max(took), 3),
        "query_seconds_max_5_s_around_the_switch": round(asking.slowest(around=switched, within=5.0), 3),
        "longest_gap_between_answers": round(asking.longest_gap(), 3),
        "load_average": os.getloadavg(),
        "lost": lost,
        "stale": stale,
    }


def reindexed_under_changes(folder: Path, publisher: Publisher, arguments: argparse.Namespace) -> dict[str, Any]:
    """Reindex, and change documents once it has begun; its report."""
    process = reindexing(folder, arguments.chunk_size)
    while process.poll() is None and not (folder / "vectors-g2").exists():
        time.sleep(0.2)
    if arguments.kill:
        time.sleep(5)
        process.kill()
        process.communicate()
    for number in range(0, arguments.documents, _EVERY):
        publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=updated(number)))
        publisher.delete(f"doc-{number + 1}")
    publisher.flush()
    if arguments.kill:
        process = reindexing(folder, arguments.chunk_size)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the reindex failed; what it said is above")
    report: dict[str, Any] = json.loads(output)
    return report


def reindexing(folder: Path, chunk_size: int) -> "subprocess.Popen[str]":
    """A started `aegis reindex`; it says on standard error how far it is."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "reindex", "--chunk-size", str(chunk_size), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"AEGIS_DATA_DIR": str(folder)},
        start_new_session=True,
    )


def document(number: int) -> DocumentRecord:
    """One chunk, with a word of its own."""
    return DocumentRecord(document_id=f"doc-{number}", text=text_of(number))


def text_of(number: int) -> str:
    """About 25 words."""
    filler = "Freight trains cross the alpine base tunnel at night while passenger trains wait in the southern valley."
    return f"The {word_of(number)} is kept here. {filler}"


def updated(number: int) -> str:
    """What the document says after its update."""
    return f"The {word_of(number)}updated is kept here now."


def word_of(number: int) -> str:
    """A word that is in one document only, and that no stemmer takes for another."""
    return "zq" + "".join("bcdfghjkmz"[int(digit)] for digit in f"{number:05}") + "x"


def expectations(documents: int) -> dict[str, str]:
    """What every document that is there says."""
    expected = {f"doc-{number}": text_of(number) for number in range(documents) if number % _EVERY != 1}
    expected |= {f"doc-{number}": updated(number) for number in range(0, documents, _EVERY)}
    return expected | {"late": f"{word_of(documents)} came late."}


def held(settings: Settings) -> list[dict[str, str]]:
    """What each document says in the vector store and in the graph of a stopped system; each is one chunk."""
    vectors, graphs = open_vectors(settings), open_graphs(settings)
    by_vectors = {chunk.document_id: chunk.text for chunk in vectors.store.dump()}
    by_graph = {row[1]: row[3] for row in graphs.store.dump() if row[0] == "chunk"}
    vectors.store.close()
    graphs.store.close()
    graphs.close()
    return [by_vectors, by_graph]


if __name__ == "__main__":
    main()
