"""`python -m tests.eval_retrieval`: how well search finds what people judged relevant, and by which of its parts.

Fusion is tuned on some queries (``--tune``) and reported on others: the even and the odd articles of XQuAD, the train
and test claims of SciFact, multi-hop questions of different data sets.
"""

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from api.retrievers.hits import CANDIDATES
from processors import build
from processors.embed import Embedder
from processors.fuse import BM25_WEIGHT, fuse
from processors.rerankers import Reranker
from processors.rerankers.cross_encoder import CrossEncoderReranker
from schemas.settings import Settings
from schemas.storage import DENSE, SPARSE

DATA = Path(os.environ.get("AEGIS_DATA", "../shared/data"))
PARTS = (DENSE, SPARSE)
TRIED = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.13)
RERANKED = 20

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
Ranking = Sequence[str]


class DataSet(NamedTuple):
    """A folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels``; ``half`` takes only the even or odd articles."""

    folder: str
    split: str = "test"
    half: int | None = None

    @property
    def name(self) -> str:
        half = "" if self.half is None else ("even", "odd")[self.half]
        return f"{Path(self.folder).name} {half or self.split}"


TUNING = [
    DataSet("retrieval/scifact", "train"),
    DataSet("retrieval/xquad_en", half=0),
    DataSet("retrieval/xquad_de", half=0),
    DataSet("multihop/hotpotqa_train100"),
    DataSet("multihop/musique_train100"),
]
REPORTED = [
    DataSet("retrieval/scifact"),
    DataSet("retrieval/xquad_en", half=1),
    DataSet("retrieval/xquad_de", half=1),
    DataSet("multihop/2wiki_164"),
]


@dataclass(frozen=True)
class Query:
    """A query, what answers it, and the scores of what each search found, as the retriever gets them."""

    text: str
    relevant: frozenset[str]
    found: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Collection:
    """Passages by id, and queries about them. Each system makes a ranking for a query."""

    passages: Mapping[str, str]
    queries: Sequence[Query]

    def part(self, query: Query, name: str) -> Ranking:
        return list(query.found[name])

    def fused(self, query: Query, *, bm25_weight: float = BM25_WEIGHT) -> Ranking:
        return [passage for passage, _ in fuse(query.found, limit=CANDIDATES, bm25_weight=bm25_weight)]

    def reranked(self, query: Query, reranker: Reranker) -> Ranking:
        ranking = self.fused(query)
        scores = reranker.rerank(query.text, [self.passages[passage] for passage in ranking[:RERANKED]])
        return [*(ranking[place] for place in np.argsort(-scores, kind="stable")), *ranking[RERANKED:]]


def collection(data_set: DataSet, embed: Embed) -> Collection:
    folder = DATA / data_set.folder
    passages = {entry["_id"]: _contextual(entry) for entry in entries(folder / "corpus.jsonl")}
    relevant = judged(data_set)
    texts = {entry["_id"]: entry["text"] for entry in entries(folder / "queries.jsonl") if entry["_id"] in relevant}
    cosines = embed(list(texts.values())) @ embed(list(passages.values())).T
    bm25 = bm25_scores(list(texts.values()), list(passages.values()))
    ids = np.array(list(passages))
    queries = [
        Query(
            text,
            frozenset(relevant[query]),
            {DENSE: _best(ids, dense), SPARSE: _best(ids[sparse > 0], sparse[sparse > 0])},
        )
        for (query, text), dense, sparse in zip(texts.items(), cosines, bm25, strict=True)
    ]
    return Collection(passages, queries)


def _contextual(entry: Mapping[str, str]) -> str:
    """As a chunk is embedded and indexed (schemas.records.Chunk.contextual_text)."""
    return f"{entry['title'][:160]}\n{entry['text']}" if entry.get("title") else entry["text"]


def judged(data_set: DataSet) -> dict[str, set[str]]:
    relevant: defaultdict[str, set[str]] = defaultdict(set)
    path = DATA / data_set.folder / "qrels" / f"{data_set.split}.tsv"
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if int(grade) > 0 and (data_set.half is None or int(passage.split("-")[0]) % 2 == data_set.half):
            relevant[query].add(passage)
    return relevant


def entries(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _best(ids: NDArray[np.str_], scores: NDArray[Any]) -> dict[str, float]:
    """The candidates, best first, equal ones by id (as api.retrievers.hits orders them)."""
    order = np.lexsort((ids, -scores.round(6)))[:CANDIDATES]
    return {str(ids[place]): round(float(scores[place]), 6) for place in order}


def bm25_scores(queries: Sequence[str], passages: Sequence[str]) -> Vectors:
    """What the store computes: the dot product of the sparse vectors, times Qdrant's IDF of the collection."""
    encoder = build.build_sparse_encoder()
    postings: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for place, passage in enumerate(passages):
        for term, weight in zip(*encoder.document(passage), strict=True):
            postings[term].append((place, weight))
    scores = np.zeros((len(queries), len(passages)), np.float32)
    for row, query in enumerate(queries):
        for term, weight in zip(*encoder.query(query), strict=True):
            if found := postings.get(term):
                idf = math.log((len(passages) - len(found) + 0.5) / (len(found) + 0.5) + 1)
                places, weights = zip(*found, strict=True)
                scores[row, list(places)] += np.array(weights, np.float32) * np.float32(weight * idf)
    return scores


def ndcg(ranking: Ranking, relevant: frozenset[str], k: int = 10) -> float:
    """Normalised discounted cumulative gain of binary judgements (Järvelin and Kekäläinen 2002), as trec_eval's."""
    gains = [1 / math.log2(rank + 1) for rank in range(1, k + 1)]
    found = sum(gain for gain, passage in zip(gains, ranking, strict=False) if passage in relevant)
    return found / sum(gains[: len(relevant)])


def recall(ranking: Ranking, relevant: frozenset[str], k: int) -> float:
    return len(relevant.intersection(ranking[:k])) / len(relevant)


METRICS: Mapping[str, Callable[[Ranking, frozenset[str]], float]] = {
    "nDCG@10": ndcg,
    "recall@5": lambda ranking, relevant: recall(ranking, relevant, 5),
    "recall@10": lambda ranking, relevant: recall(ranking, relevant, 10),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over queries and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def estimate(values: NDArray[np.float64]) -> Estimate:
    """The percentile bootstrap over queries (Sakai, SIGIR 2006); of paired differences, the paired one."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def evaluated(searched: Collection, reranker: Reranker | None) -> dict[str, Any]:
    """Every metric of every system, and the nDCG@10 that what is built from the parts has over the better of them."""
    systems: dict[str, Callable[[Query], Ranking]] = {
        **{name: partial(searched.part, name=name) for name in PARTS},
        "fused": searched.fused,
    }
    if reranker:
        systems[reranker.name] = partial(searched.reranked, reranker=reranker)
    values = {name: _values(searched.queries, rank) for name, rank in systems.items()}
    better = max(PARTS, key=lambda part: float(values[part]["nDCG@10"].mean()))
    over = {name: of["nDCG@10"] - values[better]["nDCG@10"] for name, of in values.items() if name not in PARTS}
    return {
        "queries": len(searched.queries),
        "passages": len(searched.passages),
        "better": better,
        "systems": {
            name: {metric: asdict(estimate(each)) for metric, each in of.items()} for name, of in values.items()
        },
        "over_better": {name: asdict(estimate(difference)) for name, difference in over.items()},
    }


def _values(queries: Sequence[Query], rank: Callable[[Query], Ranking]) -> dict[str, NDArray[np.float64]]:
    rankings = [rank(query) for query in queries]
    return {
        name: np.array([metric(ranking, query.relevant) for ranking, query in zip(rankings, queries, strict=True)])
        for name, metric in METRICS.items()
    }


def cached(embedder: Embedder, folder: Path | None) -> Embed:
    """The embedder; what it once embedded is read from the folder."""
    if folder is None:
        return embedder.embed
    folder.mkdir(parents=True, exist_ok=True)

    def embed(texts: Sequence[str]) -> Vectors:
        digest = hashlib.sha256(json.dumps([embedder.name, *texts]).encode()).hexdigest()[:16]
        path = folder / f"{digest}.npy"
        if not path.exists():
            np.save(path, embedder.embed(texts))
        vectors: Vectors = np.load(path)
        return vectors

    return embed


def results_table(results: Mapping[str, Any]) -> Table:
    table = Table("data set", "system", *METRICS, "nDCG@10 over the better part", title="mean [95 % interval]")
    for name, result in results.items():
        for system, metrics in result["systems"].items():
            over = result["over_better"].get(system)
            shown = f"{_shown(over, '+.3f')} {result['better']}" if over else ""
            table.add_row(name, system, *(_shown(metrics[metric], ".3f") for metric in METRICS), shown)
        table.add_section()
    return table


def _shown(of: Mapping[str, float], style: str) -> str:
    return f"{of['mean']:{style}} \\[{of['low']:{style}}, {of['high']:{style}}]"


def tuning_table(searched: Mapping[str, Collection]) -> Table:
    """What each weight does to the tuning sets' nDCG@10, less that of the better part."""
    table = Table("bm25_weight", *searched, title="nDCG@10 less the better part's")
    for weight in TRIED:
        gains = (_gain(each, partial(each.fused, bm25_weight=weight)) for each in searched.values())
        table.add_row(str(weight), *(f"{gain:+.4f}" for gain in gains))
    return table


def _gain(searched: Collection, rank: Callable[[Query], Ranking]) -> float:
    parts = [_values(searched.queries, partial(searched.part, name=name)) for name in PARTS]
    better = max(part["nDCG@10"].mean() for part in parts)
    return float(_values(searched.queries, rank)["nDCG@10"].mean() - better)


def main(
    report: Annotated[Path | None, typer.Option(help="Write the results there as JSON.")] = None,
    vectors_cache: Annotated[Path | None, typer.Option(help="Keep vectors there; one folder per way to embed.")] = None,
    cross_encoder: Annotated[Path | None, typer.Option(help="Also rerank, with the model in this folder.")] = None,
    tune: Annotated[bool, typer.Option(help="Show what weights do on the tuning sets instead.")] = False,
) -> None:
    embed = cached(build.build_embedder(Settings()), vectors_cache)
    console = Console()
    if tune:
        console.print(tuning_table({data_set.name: collection(data_set, embed) for data_set in TUNING}))
        return
    reranker = CrossEncoderReranker(cross_encoder, name=cross_encoder.name) if cross_encoder else None
    results = {data_set.name: evaluated(collection(data_set, embed), reranker) for data_set in REPORTED}
    console.print(results_table(results))
    if report:
        report.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
