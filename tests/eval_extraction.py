"""`make eval-extraction`: how right names and relations are on texts that nothing was trained on, with what was asked.

Names: all texts without thresholds, and at the shipped thresholds the half that did not decide these. Relations: texts
of Re-DocRED and KnowledgeNet that decided neither weights nor thresholds (of KnowledgeNet's folds, of the fourth).
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deploy.commands.output import table
from processors.ner import NamedEntityRecogniser
from processors.ner.labels import TYPES
from processors.ner.rules import RuleRecogniser
from processors.relations.classifier import ClassifiedRelations
from schemas.vocabulary import RELATED_TO
from tests.extraction_quality import (
    Figures,
    extracted,
    of_names,
    relations_by_mentions,
    scored_texts,
    shipped_thresholds,
)
from tests.extraction_report import scores
from tests.extraction_texts import DATA
from training.corpora import held_out
from training.relation_release import spoken_of
from training.release import MAIN_SETS, MAIN_TYPES, Evaluated, evaluated, of_main_types, sure_enough, untyped

MAIN = "PERSON, ORG, LOC"
SURE = "at the shipped thresholds"


def main(
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Evaluate and print."""
    found: dict[str, Any] = {"load_average_before": round(os.getloadavg()[0], 1), "names": names()}
    found["relations"], found["sentences spoken of"] = relations()
    found["asked"] = list(asked(found))
    _print(found)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(found, indent=2))


def names() -> dict[str, dict[str, Figures]]:
    """Of each data set, each reading of the scores; with words a second of both ways to find names."""
    sets = held_out(DATA)
    by_model = evaluated("model", NamedEntityRecogniser(thresholds=dict.fromkeys(TYPES, 0.0)), sets)
    by_rule = evaluated("rules", RuleRecogniser(), sets)
    return {name: dict(_readings(by_model[name], by_rule[name])) for name in sets}


def _readings(model: Evaluated, rules: Evaluated) -> Iterator[tuple[str, Figures]]:
    every = of_names(model.golds, model.found, model.mapping)
    yield "all types, without thresholds", {**every, "words_per_second": round(model.words / model.seconds)}
    yield f"{MAIN}, without thresholds", of_names(model.golds, *of_main_types(model.found, model.mapping))
    golds, found, mapping = model.half(1)
    sure = sure_enough(found, shipped_thresholds())
    yield f"{MAIN}, {SURE}", of_names(golds, *of_main_types(sure, mapping))
    for type_ in MAIN_TYPES:
        yield f"{type_}, {SURE}", of_names(golds, *of_main_types(sure, mapping, [type_]))
    by_rule = of_names(rules.golds, *of_main_types(rules.found, rules.mapping))
    yield f"{MAIN}, rules", {**by_rule, "words_per_second": round(rules.words / rules.seconds)}
    for one in (model, rules):
        yield f"whatever the type, {one.by}", of_names(one.golds, *untyped(one.found, one.mapping))


def relations() -> tuple[dict[str, Figures], dict[str, dict[str, int]]]:
    """Of the classifier at the shipped thresholds; and of how many sentences typed and untyped relations speak."""
    classifier = ClassifiedRelations()
    figures: dict[str, Figures] = {}
    shares: dict[str, dict[str, int]] = {}
    for name, texts in scored_texts(classifier).items():
        found = extracted(texts)
        for mentions, of in relations_by_mentions(classifier, texts, found).items():
            figures[f"{name}, {mentions} mentions"] = of
        typed = [[one for one in of.relations if one.type != RELATED_TO] for of in found]
        by_typed, by_any = spoken_of(texts, typed), spoken_of(texts, [of.relations for of in found])
        shares[name] = {"sentences": len(by_any), "typed": sum(by_typed), "typed or untyped": sum(by_any)}
    return figures, shares


def asked(found: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What was asked for, what is there, and whether that is enough."""
    for name in (*MAIN_SETS, "GermEval dev"):
        of = found["names"][name]
        sure, raw = of[f"{MAIN}, {SURE}"], of["all types, without thresholds"]
        enough = sure["precision"] >= 0.82 and sure["recall"] >= 0.5
        yield f"{name}: {MAIN} P at least .82, R at least .50", f"P {sure['precision']} R {sure['recall']}", enough
        for type_ in MAIN_TYPES:
            one = of[f"{type_}, {SURE}"]
            enough = one["precision"] >= 0.82 and one["recall"] >= 0.5
            yield f"{name}: {type_} alone", f"P {one['precision']} R {one['recall']}", enough
        yield f"{name}: F1 without thresholds, aim .75", str(raw["f1"]), raw["f1"] >= 0.75
    for name, of in found["relations"].items():
        if name.endswith("given mentions"):
            enough = of["precision"] >= 0.75 and of["recall"] >= 0.25
            yield f"{name}: P at least .75, R at least .25", f"P {of['precision']} R {of['recall']}", enough


def _print(found: Mapping[str, Any]) -> None:
    console = Console()
    for name, readings in found["names"].items():
        rows = [(reading, *scores(of), of["wanted"], of.get("words_per_second")) for reading, of in readings.items()]
        console.print(table([name, "precision", "recall", "F1", "mentions", "words/s"], rows))
    of_relations = [(name, *scores(of), of["wanted"]) for name, of in found["relations"].items()]
    console.print(table(["relations by the classifier", "precision", "recall", "F1", "facts"], of_relations))
    shares = [
        (name, of["sentences"], *(f"{of[kind] / of['sentences']:.0%}" for kind in ("typed", "typed or untyped")))
        for name, of in found["sentences spoken of"].items()
    ]
    console.print(table(["sentences spoken of", "sentences", "typed", "typed or untyped"], shares))
    answers = [(line, value, "yes" if enough else "no") for line, value, enough in found["asked"]]
    console.print(table(["asked", "is", "enough"], answers))


if __name__ == "__main__":
    typer.run(main)
