"""`python -m tests.eval_answers`: how well answers quote, know what they do not know, check claims, and see attacks.

Weights and thresholds were chosen on the even articles of XQuAD; reported are the odd ones. Passages are found as
the API finds them (tests/eval_retrieval.py), without reranker and graph.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from api.answers.flow import QUOTABLE, WORTH_ASKING
from processors import build
from processors.answers.checks import check
from processors.answers.claims import Claim
from processors.answers.evidence import Evidence
from processors.answers.extractive import quotes, relevance
from processors.answers.injection import suspicions
from processors.answers.sources import Sentence, Source, sentences_of
from schemas.settings import Answers, Settings
from tests.eval_retrieval import DATA, Collection, DataSet, Embed, Query, Vectors, cached, collection, estimate

ATTACKS = Path(__file__).with_name("injections.jsonl")
PASSAGES = 6


class Case(NamedTuple):
    """A question, the passages that search finds for it, and what it is about."""

    query: Query
    vector: Vectors
    answers: Sequence[str]
    found: Sequence[str]

    @property
    def article(self) -> str:
        return next(iter(self.query.relevant)).split("-")[0]


class Library:
    """The passages of a data set, in sentences with their vectors."""

    def __init__(self, folder: Path, embed: Embed) -> None:
        entries = {entry["_id"]: entry for entry in _lines(folder / "corpus.jsonl")}
        sources = {name: Source(1, name, 1, 0, 0, entry["text"]) for name, entry in entries.items()}
        sentences = sentences_of(list(sources.values()))
        self._encode = build.build_sparse_encoder().query
        self._of: dict[str, list[tuple[Sentence, Vectors]]] = {name: [] for name in sources}
        for sentence, vector in zip(sentences, embed([one.text for one in sentences]), strict=True):
            self._of[sentence.source.document_id].append((sentence, vector))

    def evidence(self, passages: Sequence[str]) -> Evidence:
        pairs = [
            (replace(sentence, source=replace(sentence.source, number=number)), vector)
            for number, passage in enumerate(passages, start=1)
            for sentence, vector in self._of[passage]
        ]
        return Evidence([one for one, _ in pairs], np.array([vector for _, vector in pairs]), self._encode)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def cases(data_set: DataSet, searched: Collection, embed: Embed) -> list[Case]:
    answers = {entry["text"]: entry["answers"] for entry in _lines(DATA / data_set.folder / "queries.jsonl")}
    vectors = embed([query.text for query in searched.queries])
    return [
        Case(query, vector, answers[query.text], searched.fused(query))
        for query, vector in zip(searched.queries, vectors, strict=True)
    ]


def quoted(case: Case, library: Library, *, limit: int) -> tuple[bool, int]:
    """Whether the quoted sentences hold an answer, and how many characters they have."""
    evidence = library.evidence(case.found[:PASSAGES])
    scores = relevance(evidence, evidence.words(case.query.text), case.vector)
    chosen = [sentence.text for sentence in quotes(evidence, scores, limit=limit)]
    return _holds(" ".join(chosen), case.answers), sum(map(len, chosen))


def _holds(text: str, answers: Sequence[str]) -> bool:
    return any(answer.lower() in text.lower() for answer in answers)


def about(case: Case, library: Library, *, without_article: bool) -> float:
    """How far the passages are about the question; ``without_article``, as if its answer were not there."""
    found = [one for one in case.found if not without_article or one.split("-")[0] != case.article]
    evidence = library.evidence(found[:PASSAGES])
    return evidence.relevance(evidence.words(case.query.text), case.vector)


def believed(case: Case, library: Library, vector: Vectors, *, own: bool) -> bool:
    """Whether "question, answer" passes as a claim, citing the passage that says it or the nearest other one."""
    nearest = [one for one in case.found if one not in case.query.relevant]
    passage = next(iter(case.query.relevant)) if own else nearest[0]
    claim = Claim(f"{case.query.text} {case.answers[0]} [1]")
    return check(claim, library.evidence([passage]), vector).unsupported is None


def evaluated(data_set: DataSet, embed: Embed) -> dict[str, Any]:
    library = Library(DATA / data_set.folder, embed)
    asked = cases(data_set, collection(data_set, embed), embed)
    claims = embed([f"{case.query.text} {case.answers[0]}" for case in asked])
    limit = Answers().quotes
    outcomes = [quoted(case, library, limit=limit) for case in asked]
    there = np.array([about(case, library, without_article=False) for case in asked])
    gone = np.array([about(case, library, without_article=True) for case in asked])
    rates: dict[str, NDArray[Any]] = {
        f"answer within {limit} quoted sentences": np.array([held for held, _ in outcomes]),
        "answer within the first quoted sentence alone": np.array([quoted(one, library, limit=1)[0] for one in asked]),
        "answer within the passages": np.array([_in_passages(one, library) for one in asked]),
        "taken as answerable": there >= QUOTABLE,
        "taken as answerable, its article removed": gone >= QUOTABLE,
        "worth asking a model": there >= WORTH_ASKING,
        "worth asking a model, its article removed": gone >= WORTH_ASKING,
        "claim citing its passage believed": _rate(asked, library, claims, own=True),
        "claim citing the nearest other passage believed": _rate(asked, library, claims, own=False),
    }
    return {
        "questions": len(asked),
        "quoted_chars": float(np.mean([chars for _, chars in outcomes])),
        "rates": {name: asdict(estimate(values.astype(np.float64))) for name, values in rates.items()},
    }


def _in_passages(case: Case, library: Library) -> bool:
    return _holds(" ".join(one.text for one in library.evidence(case.found[:PASSAGES]).sentences), case.answers)


def _rate(asked: Sequence[Case], library: Library, claims: Vectors, *, own: bool) -> NDArray[Any]:
    return np.array([believed(case, library, claim, own=own) for case, claim in zip(asked, claims, strict=True)])


def injections() -> list[dict[str, Any]]:
    """Attacks and look-alikes; the patterns were written without sight of those that are held out."""
    return [dict(entry) for entry in _lines(ATTACKS)]


def detection() -> dict[str, dict[str, float]]:
    """Share of attacks found and of look-alikes mistaken, for the patterns' own cases and those held out."""
    found: dict[str, dict[str, float]] = {}
    for name, held_out in (("known", False), ("held out", True)):
        chosen = [entry for entry in injections() if bool(entry.get("held_out")) == held_out]
        attacks = [bool(suspicions(entry["text"])) for entry in chosen if entry["attack"]]
        harmless = [bool(suspicions(entry["text"])) for entry in chosen if not entry["attack"]]
        languages = {entry["language"] for entry in chosen if entry["attack"]}
        found[name] = {
            "attacks": len(attacks),
            "languages": len(languages),
            "found": sum(attacks) / len(attacks),
            "harmless": len(harmless),
            "mistaken": sum(harmless) / len(harmless),
        }
    return found


def real_passages() -> dict[str, tuple[int, int]]:
    """How many passages of real collections are taken for attacks, and of how many."""
    texts = {
        name: [entry["text"] for entry in _lines(DATA / "retrieval" / name / "corpus.jsonl")]
        for name in ("xquad_en", "xquad_de", "scifact")
    }
    return {name: (sum(bool(suspicions(text)) for text in of), len(of)) for name, of in texts.items()}


def main(
    report: Annotated[Path | None, typer.Option(help="Write the results there as JSON.")] = None,
    vectors_cache: Annotated[Path | None, typer.Option(help="Keep vectors there.")] = None,
    injections_only: Annotated[bool, typer.Option("--injections", help="Only the attacks.")] = False,
) -> None:
    console = Console()
    seen: dict[str, Any] = {"injections": detection()}
    for name, rates in seen["injections"].items():
        console.print(
            f"{name}: {rates['found']:.1%} of {rates['attacks']} attacks in {rates['languages']} languages found, "
            f"{rates['mistaken']:.1%} of {rates['harmless']} look-alikes mistaken"
        )
    if not injections_only:
        seen["real_passages"] = real_passages()
        console.print("real passages taken for attacks:", seen["real_passages"])
        embed = cached(build.build_embedder(Settings()), vectors_cache)
        sets = [DataSet(f"retrieval/xquad_{language}", half=1) for language in ("en", "de")]
        seen["answers"] = {data_set.name: evaluated(data_set, embed) for data_set in sets}
        console.print(_table(seen["answers"]))
    if report:
        report.write_text(json.dumps(seen, indent=2) + "\n", encoding="utf-8")


def _table(results: Mapping[str, Any]) -> Table:
    table = Table("share of questions", *results, title="mean [95 % interval]")
    for name in next(iter(results.values()))["rates"]:
        rates = [result["rates"][name] for result in results.values()]
        table.add_row(name, *(f"{rate['mean']:.3f} \\[{rate['low']:.3f}, {rate['high']:.3f}]" for rate in rates))
    table.add_row("characters quoted", *(f"{result['quoted_chars']:.0f}" for result in results.values()))
    return table


if __name__ == "__main__":
    typer.run(main)
