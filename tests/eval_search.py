"""`make eval`: the data sets ingested through Kafka and asked over HTTP, by every way of searching.

The graph's part was tuned on ``TUNING`` of ``tests.eval_retrieval``; the table says which figures are held out. A set
is ingested once: what the folder holds already is only touched.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from numpy.typing import NDArray

from deploy.commands.documents import wait_for
from deploy.local.system import System, started
from schemas.records import DocumentRecord
from schemas.settings import Settings
from streams.publisher import Publisher
from tests.eval_retrieval import DATA, METRICS, REPORTED, TUNING, DataSet, entries, estimate, judged

SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "dense": {"mode": "vector"},
    "bm25": {"mode": "keyword"},
    "fused": {"mode": "hybrid"},
    "fused + graph": {"mode": "auto"},
}
RERANKED = "fused + graph + rerank"
SHOWN = ("nDCG@10", "recall@5")
# By how much one system's metric is above another's.
COMPARED = (("recall@5", "fused + graph", "dense"), ("nDCG@10", "fused + graph", "fused"))
_LIMIT = 50


@dataclass(frozen=True)
class Asked:
    """One system's answers to a set's queries: the metrics' values per query, and how long each took."""

    values: Mapping[str, NDArray[np.float64]]
    milliseconds: Sequence[float]
    degraded: int


def ingest(system: System, settings: Settings, data_set: DataSet) -> None:
    servers = system.running.bootstrap_servers
    with Publisher(servers, settings) as publisher:
        published = [
            publisher.publish(
                DocumentRecord(document_id=one["_id"], text=one["text"], title=one.get("title") or None, version=1)
            )
            for one in entries(DATA / data_set.folder / "corpus.jsonl")
        ]
        publisher.flush()
    states = wait_for(servers, settings, published, timeout=6 * 3600)
    if set(states) != {"indexed"}:
        raise SystemExit(f"not all documents of {data_set.folder} are indexed: {states}")


def ask(http: httpx.Client, data_set: DataSet, options: Mapping[str, Any]) -> Asked:
    relevant = judged(data_set)
    queries = [one for one in entries(DATA / data_set.folder / "queries.jsonl") if one["_id"] in relevant]
    values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    milliseconds, degraded = [], 0
    for query in queries:
        begun = time.perf_counter()
        response = http.post(
            "/api/v1/search", json={"query": query["text"], "limit": _LIMIT, "rerank": False, **options}
        )
        milliseconds.append((time.perf_counter() - begun) * 1000)
        answer = response.raise_for_status().json()
        degraded += bool(answer["degraded"])
        ranking = list(dict.fromkeys(hit["document_id"] for hit in answer["hits"]))
        for metric, of in METRICS.items():
            values[metric].append(of(ranking, frozenset(relevant[query["_id"]])))
    return Asked({metric: np.array(each) for metric, each in values.items()}, milliseconds, degraded)


def figures(asked: Mapping[str, Asked]) -> dict[str, Any]:
    systems = {
        name: {
            **{metric: asdict(estimate(values)) for metric, values in of.values.items()},
            **{f"p{share}_ms": float(np.percentile(of.milliseconds, share)) for share in (50, 95)},
            "degraded": of.degraded,
        }
        for name, of in asked.items()
    }
    differences = {
        f"{metric}: {name} over {other}": asdict(estimate(asked[name].values[metric] - asked[other].values[metric]))
        for metric, name, other in COMPARED
    }
    return {"queries": len(asked["dense"].milliseconds), "systems": systems, "differences": differences}


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    columns = [*SHOWN, "p50 ms", "p95 ms", "degraded"]
    lines = [f"| set | system | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for name, result in results.items():
        for system, of in result["systems"].items():
            cells = [*(_shown(of[metric]) for metric in SHOWN), f"{of['p50_ms']:.0f}", f"{of['p95_ms']:.0f}"]
            lines.append(f"| {name} | {system} | {' | '.join(cells)} | {of['degraded']} |")
    lines += ["", "Mean over queries [95 % bootstrap interval]. Differences, paired:", ""]
    for name, result in results.items():
        lines += [f"- {name}: {what} {_shown(of, '+')}" for what, of in result["differences"].items()]
    return "\n".join(lines) + "\n"


def _shown(of: Mapping[str, float], sign: str = "") -> str:
    return f"{of['mean']:{sign}.3f} [{of['low']:{sign}.3f}, {of['high']:{sign}.3f}]"


def _named(data_set: DataSet) -> str:
    return f"{data_set.name} ({'tuned on' if data_set in TUNING else 'held out'})"


def main(
    report: Annotated[Path, typer.Option(help="Write the figures to this name with .json and with .md.")],
    folder: Annotated[Path, typer.Option(help="Broker and stores of each set; a second run finds them there.")],
    only: Annotated[list[str] | None, typer.Option(help="Only sets of this name, such as 2wiki_164.")] = None,
) -> None:
    results: dict[str, Any] = {}
    data_sets = [one for one in (*REPORTED, *TUNING) if not only or Path(one.folder).name in only]
    for path in dict.fromkeys(one.folder for one in data_sets):
        settings = Settings(data_dir=folder / Path(path).name, api={"port": 0})
        reranks = settings.reranking.backend != "none"
        systems = {**SYSTEMS, **({RERANKED: {"mode": "auto", "rerank": True}} if reranks else {})}
        with started(settings, say=print) as system, httpx.Client(base_url=system.running.api_url, timeout=120) as http:
            system.wait_until_ready(timeout=600)
            ingest(system, settings, DataSet(path))
            for data_set in (one for one in data_sets if one.folder == path):
                asked = {name: ask(http, data_set, options) for name, options in systems.items()}
                results[_named(data_set)] = figures(asked)
                report.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
                report.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    typer.echo(markdown(results))


if __name__ == "__main__":
    typer.run(main)
