"""`python -m tests.eval_entities`: how often names that are joined are names of one thing, and how many are not joined.

Two sets of names with labels, each in halves: one to choose rules and scores on, one to report.

Re-DocRED (500 documents) labels within a document: its coreference clusters. Across documents clusters that share a
type and a full name (two words or more) count as one; two names are known to be of two things only where one document
holds both in two clusters. Any other pair across documents is *unjudged*, and listed. So what is counted across its
documents flatters exact names, which made the labels, and its precision is of those pairs that somebody judged.

KnowledgeNet labels across documents, by Wikidata id: every pair of names with ids is judged. Its names are subjects and
objects of 15 properties, pronouns left out; sometimes an annotator gave one thing two ids, which counts as wrong.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from processors import build
from processors.aliases import alias, is_short, keys, spelt_out
from processors.dedup import deduplicated, folded
from processors.resolve import Link, resolved
from schemas.ids import normalised_name
from schemas.records import Mention
from schemas.settings import Settings

DATA = Path(os.environ.get("AEGIS_DATA", "../shared/data"))
COSINE = 0.93
_DOCRED_TYPES = {"PER": "PERSON", "ORG": "ORG", "LOC": "LOC", "MISC": "MISC"}
_PROPERTIES = {
    "PLACE_OF_RESIDENCE": ("PERSON", "LOC"),
    "PLACE_OF_BIRTH": ("PERSON", "LOC"),
    "NATIONALITY": ("PERSON", "LOC"),
    "EMPLOYEE_OR_MEMBER_OF": ("PERSON", "ORG"),
    "EDUCATED_AT": ("PERSON", "ORG"),
    "POLITICAL_AFFILIATION": ("PERSON", "ORG"),
    "CHILD_OF": ("PERSON", "PERSON"),
    "SPOUSE": ("PERSON", "PERSON"),
    "DATE_OF_BIRTH": ("PERSON", None),
    "DATE_OF_DEATH": ("PERSON", None),
    "DATE_FOUNDED": ("ORG", None),
    "HEADQUARTERS": ("ORG", "LOC"),
    "SUBSIDIARY_OF": ("ORG", "ORG"),
    "FOUNDED_BY": ("ORG", "PERSON"),
    "CEO": ("ORG", "PERSON"),
}
_PRONOUN = re.compile(
    r"i|me|my|we|us|our|you|your|s?he|him|his|hers?|its?|they|them|their|who(se|m)?|which|that|where|(it|him|her)self",
    re.IGNORECASE,
)

Entity = tuple[str, str]
"""Type and folded name: what an exact key is made of."""
Verdict = Literal["same", "different", "unjudged"]
System = Callable[["Item"], str]


class Item(NamedTuple):
    """A name in a document. ``resolved`` is the entity that its own text makes of it; ``labels`` say what it is."""

    document: str
    entity: Entity
    resolved: Entity
    labels: frozenset[str]


@dataclass(frozen=True)
class Labelled:
    """Names with what they are of. Without ``all_judged`` only names of one document can be of different things."""

    items: Sequence[Item]
    all_judged: bool

    def verdict(self, one: Item, other: Item) -> Verdict:
        if one.labels & other.labels:
            return "same"
        return "different" if self.all_judged or one.document == other.document else "unjudged"


def docred(part: int) -> Labelled:
    """Every second document of Re-DocRED's development set; clusters are united across documents by full names."""
    documents = json.loads((DATA / "re/redocred/dev_revised.json").read_text(encoding="utf-8"))[part::2]
    named: dict[Entity, str] = {}
    unions = _Unions()
    found = []
    for number, document in enumerate(documents):
        mentions, labels = [], []
        for cluster, vertex in enumerate(document["vertexSet"]):
            for mention in vertex:
                if mention["type"] in _DOCRED_TYPES:
                    mentions.append(_mention(mention["name"], _DOCRED_TYPES[mention["type"]]))
                    labels.append(f"{number}/{cluster}")
        found.append((str(number), mentions, labels))
        for mention, label in zip(mentions, labels, strict=True):
            entity = _entity(mention)
            if " " in entity[1]:
                unions.join(label, named.setdefault(entity, label))
    items = {
        item
        for document, mentions, labels in found
        for item in _items(document, mentions, [frozenset({unions.root(label)}) for label in labels])
    }
    return Labelled(sorted(items, key=_order), all_judged=False)


def knowledgenet(part: int) -> Labelled:
    """Two of KnowledgeNet's four folds."""
    texts: defaultdict[tuple[str, str], dict[Mention, set[str]]] = defaultdict(dict)
    for line in (DATA / "re/knowledgenet/facts_folds1-4.jsonl").read_text(encoding="utf-8").splitlines():
        fact = json.loads(line)
        if fact["fold"] % 2 != part:
            continue
        of = texts[str(fact["doc"]), fact["text"]]
        for role, type_ in zip(("subject", "object"), _PROPERTIES[fact["property"]], strict=True):
            text = fact["text"][slice(*fact[role])]
            if type_ and role in fact["uri"] and not _PRONOUN.fullmatch(text):
                of.setdefault(_mention(text, type_), set()).add(fact["uri"][role].rpartition("/")[2])
    items = {
        item
        for (document, _), of in texts.items()
        for item in _items(document, list(of), [frozenset(labels) for labels in of.values()])
    }
    return Labelled(sorted(items, key=_order), all_judged=True)


def _mention(text: str, type_: str) -> Mention:
    return Mention(start=0, end=1, text=text, name=normalised_name(text), type=type_)


def _entity(mention: Mention) -> Entity:
    return mention.type, folded(mention.name, mention.type)


def _items(document: str, mentions: Sequence[Mention], labels: Sequence[frozenset[str]]) -> Iterator[Item]:
    for mention, known, joined in zip(mentions, labels, deduplicated(mentions), strict=True):
        yield Item(document, _entity(mention), (joined.type, joined.name), known)


def _order(item: Item) -> tuple[object, ...]:
    return (item.document, item.entity, item.resolved, sorted(item.labels))


class _Unions:
    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, of: str) -> str:
        while (parent := self._parents.get(of, of)) != of:
            of = parent
        return of

    def join(self, one: str, other: str) -> None:
        one, other = self.root(one), self.root(other)
        self._parents[max(one, other)] = min(one, other)


def links(entities: Iterable[Entity]) -> list[tuple[Entity, Entity, str, float, bool]]:
    """What ``processors.aliases`` says of these entities, as the graph store asks it."""
    by_key: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for type_, name in entities:
        for key in keys(type_, name):
            by_key[type_, key].add(name)
    pairs = {(type_, *pair) for (type_, _), names in by_key.items() for pair in combinations(sorted(names), 2)}
    found: list[tuple[Entity, Entity, str, float, bool]] = []
    for type_, one, other in sorted(pairs):
        if of := alias(type_, one, other):
            name, short = sorted((one, other), key=spelt_out)
            found.append(((type_, short), (type_, name), of.reason, of.score, is_short(of.reason)))
    return found


def alike(entities: Sequence[Entity], *, guarded: bool) -> Iterator[tuple[Entity, Entity]]:
    """Entities of one type whose names' embeddings have the design's cosine; guarded, whose forms agree as well."""
    vectors = build.build_embedder(Settings()).embed([name for _, name in entities])
    matrix = np.asarray(vectors)
    for type_ in sorted({type_ for type_, _ in entities}):
        places = np.array([place for place, entity in enumerate(entities) if entity[0] == type_])
        cosines = np.triu(matrix[places] @ matrix[places].T, 1)
        for one, other in np.argwhere(cosines >= COSINE):
            pair = entities[places[one]], entities[places[other]]
            if not guarded or _forms_agree(pair[0][1], pair[1][1]):
                yield pair


def _forms_agree(one: str, other: str) -> bool:
    """As many words, the same numbers, and no word in the place of one that begins otherwise."""
    first, second = one.split(), other.split()
    return (
        len(first) == len(second) > 1
        and re.findall(r"\d+", one) == re.findall(r"\d+", other)
        and all(a[:3] == b[:3] and abs(len(a) - len(b)) < 3 for a, b in zip(first, second, strict=True))
    )


def systems(labelled: Labelled) -> dict[str, System]:
    """What names are joined by, each with a name for the group that an item is in."""
    entities = sorted({item.resolved for item in labelled.items})
    found = links(entities)

    def joined(by: Iterable[Link]) -> System:
        groups = resolved(by)
        return lambda item: min(groups.group(_id(item.resolved)))

    def by_rule(score: float) -> System:
        return joined(
            Link(_id(one), _id(other), reason, of, is_short=short)
            for one, other, reason, of, short in found
            if of >= score
        )

    def by_cosine(*, guarded: bool) -> System:
        return joined(Link(_id(one), _id(other), "cosine") for one, other in alike(entities, guarded=guarded))

    return {
        "exact name": lambda item: _id(item.entity),
        "exact name in the graph (text resolved)": lambda item: _id(item.resolved),
        "links >= .95": by_rule(0.95),
        "links >= .86": by_rule(0.86),
        "all links": by_rule(0),
        "cosine >= .93": by_cosine(guarded=False),
        "cosine >= .93, form agrees": by_cosine(guarded=True),
    }


def _id(entity: Entity) -> str:
    return "\x1f".join(entity)


@dataclass
class Score:
    """Counts of pairs. ``of`` is how many pairs there are to be joined."""

    same: int
    different: int
    unjudged: int
    of: int

    @property
    def precision(self) -> float:
        return self.same / max(1, self.same + self.different)

    @property
    def recall(self) -> float:
        return self.same / max(1, self.of)

    def report(self) -> dict[str, float]:
        return asdict(self) | {"precision": round(self.precision, 4), "recall": round(self.recall, 4)}


def scored(labelled: Labelled, system: System) -> dict[str, Score]:
    """Over pairs of names in documents: those within one, those across two, and those of unequal names alone."""
    by_label: defaultdict[str, list[Item]] = defaultdict(list)
    by_group: defaultdict[str, list[Item]] = defaultdict(list)
    for item in labelled.items:
        by_group[system(item)].append(item)
        for label in item.labels:
            by_label[label].append(item)
    truth = {pair for items in by_label.values() for pair in combinations(items, 2)}
    to_join = Counter(kind for pair in truth for kind in _kinds(*pair))
    joined = Counter(
        (kind, labelled.verdict(*pair))
        for items in by_group.values()
        for pair in combinations(items, 2)
        for kind in _kinds(*pair)
    )
    return {
        kind: Score(joined[kind, "same"], joined[kind, "different"], joined[kind, "unjudged"], to_join[kind])
        for kind in ("within a document", "across documents", "unequal names")
    }


def _kinds(one: Item, other: Item) -> Iterator[str]:
    yield "within a document" if one.document == other.document else "across documents"
    if one.entity != other.entity:
        yield "unequal names"


def by_reason(labelled: Labelled) -> dict[str, dict[str, Any]]:
    """What becomes of each reason's links between entities, with those that are not known to be right."""
    holders: defaultdict[Entity, list[Item]] = defaultdict(list)
    for item in labelled.items:
        holders[item.entity].append(item)
    found: dict[str, dict[str, Any]] = {}
    for one, other, reason, score, _ in links(holders):
        verdicts = {labelled.verdict(a, b) for a in holders[one] for b in holders[other]}
        verdict = next(of for of in ("same", "different", "unjudged") if of in verdicts)
        nothing = {"score": score, "same": 0, "different": 0, "unjudged": 0, "not known to be right": []}
        of = found.setdefault(reason, nothing)
        of[verdict] += 1
        if verdict != "same":
            of["not known to be right"].append([verdict, one[0], one[1], other[1]])
    return found


SETS: Mapping[str, Callable[[int], Labelled]] = {"Re-DocRED": docred, "KnowledgeNet": knowledgenet}


def evaluated(part: int) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for name, read in SETS.items():
        labelled = read(part)
        scores = {system: scored(labelled, group) for system, group in systems(labelled).items()}
        report[name] = {
            "names in documents": len(labelled.items),
            "entities": len({item.entity for item in labelled.items}),
            "systems": {system: {kind: score.report() for kind, score in of.items()} for system, of in scores.items()},
            "reasons": by_reason(labelled),
        }
    return report


def results_table(report: Mapping[str, Any]) -> Table:
    kinds = ("within a document", "across documents", "unequal names")
    table = Table("set", "joined by", *kinds, title="precision / recall (pairs joined, of which unjudged)")
    for name, of in report.items():
        for system, scores in of["systems"].items():
            table.add_row(name, system, *(_shown(scores[kind]) for kind in kinds))
        table.add_section()
    return table


def _shown(score: Mapping[str, float]) -> str:
    joined = score["same"] + score["different"] + score["unjudged"]
    return f"{score['precision']:.3f} / {score['recall']:.3f} ({joined}, {score['unjudged']})"


def reasons_table(report: Mapping[str, Any]) -> Table:
    table = Table("set", "reason", "score", "same", "different", "unjudged")
    for name, of in report.items():
        for reason, counts in of["reasons"].items():
            table.add_row(name, reason, *(str(counts[key]) for key in ("score", "same", "different", "unjudged")))
        table.add_section()
    return table


def main(
    report: Annotated[Path | None, typer.Option(help="Write the results there as JSON.")] = None,
    tune: Annotated[bool, typer.Option(help="Show the halves that rules and scores were chosen on.")] = False,
) -> None:
    results = evaluated(0 if tune else 1)
    console = Console(width=160)
    console.print(results_table(results))
    console.print(reasons_table(results))
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
