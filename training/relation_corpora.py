"""Texts with mentions and the relations between them: Re-DocRED's documents in windows, KnowledgeNet's passages."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from processors.ner import NamedEntityRecogniser, Span
from processors.relations.pairs import SYMMETRIC, TYPES, Placed
from schemas.vocabulary import RELATION_TYPES, fits
from training.relation_labels import KNOWLEDGENET, NARROW, WIKIDATA

MAX_PIECES = 200  # of a window, as of a chunk
MISC_TYPES = ("MISC", "WORK", "EVENT", "PRODUCT")  # what Re-DocRED's MISC may be

TRAINING_DOCUMENTS = 350
"""Of Re-DocRED's 500; of the others every other one is for thresholds, and the rest for scores."""
TRAINING_FOLDS = (1, 2, 3)
"""Of KnowledgeNet's four; every other passage of the last is for thresholds, and the rest for scores."""

Fact = tuple[str, str, str]
"""Source, target, type."""

_DOCRED_TYPES = {"PER": "PERSON", "ORG": "ORG", "LOC": "LOC", "TIME": "DATE", "MISC": "MISC"}
_PRONOUN = re.compile(r"i|me|my|we|us|our|you|your|s?he|him|his|hers?|its?|they|them|their|who|whose", re.IGNORECASE)


@dataclass(frozen=True)
class Annotated:
    """A text with its mentions and what is known to hold between their entities."""

    text: str
    mentions: Sequence[Placed]
    facts: frozenset[Fact]
    judged: frozenset[str]
    """Types of which every fact is given; of the others there may be more."""


def possible(type_: str, source_type: str, target_type: str) -> bool:
    """As ``schemas.vocabulary.fits``, with MISC for all that Re-DocRED puts there."""
    sources = MISC_TYPES if source_type == "MISC" else (source_type,)
    targets = MISC_TYPES if target_type == "MISC" else (target_type,)
    return any(fits(type_, source, target) for source in sources for target in targets)


def documents(data: Path) -> list[dict[str, Any]]:
    """Re-DocRED's development documents."""
    content: list[dict[str, Any]] = json.loads((data / "re/redocred/dev_revised.json").read_text(encoding="utf-8"))
    return content


def windows(document: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[Annotated]:
    """Sentences that fit into a chunk together."""
    sizes = [len(tokenizer.encode(" ".join(words), add_special_tokens=False).ids) for words in document["sents"]]
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if total + size > MAX_PIECES and number > first:
            yield _window(document, first, number)
            first, total = number, 0
        total += size
    yield _window(document, first, len(sizes))


def _window(document: Mapping[str, Any], first: int, behind: int) -> Annotated:
    words = [word for sentence in document["sents"][first:behind] for word in sentence]
    starts = _starts(words)
    before = [0, *accumulate(len(sentence) for sentence in document["sents"][first:behind])]
    mentions, seen = [], set()
    for entity, vertex in enumerate(document["vertexSet"]):
        for mention in vertex:
            if first <= mention["sent_id"] < behind and mention["type"] in _DOCRED_TYPES:
                start, end = (before[mention["sent_id"] - first] + place for place in mention["pos"])
                if (start, end) not in seen:
                    seen.add((start, end))
                    type_ = _DOCRED_TYPES.get(vertex[0]["type"], "MISC")
                    mentions.append(Placed(starts[start], starts[end - 1] + len(words[end - 1]), type_, str(entity)))
    mentions.sort(key=lambda mention: mention.start)
    types = {mention.entity: mention.type for mention in mentions}
    facts = _mapped(
        ((str(fact["h"]), str(fact["t"]), WIKIDATA[fact["r"]]) for fact in document["labels"] if fact["r"] in WIKIDATA),
        types,
    )
    return Annotated(" ".join(words), mentions, facts, frozenset(TYPES))


def _mapped(labels: Iterator[tuple[str, str, tuple[str, bool]]], types: Mapping[str, str]) -> frozenset[Fact]:
    """Facts between entities of the text that the vocabulary allows."""
    facts = set()
    for subject, object_, (type_, is_inverse) in labels:
        source, target = (object_, subject) if is_inverse else (subject, object_)
        if source in types and target in types and possible(type_, types[source], types[target]):
            facts.add((source, target, type_))
            if type_ in SYMMETRIC:
                facts.add((target, source, type_))
    return frozenset(facts)


def passages(data: Path) -> dict[str, list[dict[str, Any]]]:
    """KnowledgeNet's annotations by the passage's text; those without a subject say that there is no such fact."""
    by_text: dict[str, list[dict[str, Any]]] = {}
    for name in ("facts_folds1-4", "annotated_no_fact_folds1-4"):
        for line in (data / f"re/knowledgenet/{name}.jsonl").read_text(encoding="utf-8").splitlines():
            annotation = json.loads(line)
            by_text.setdefault(annotation["text"], []).append(annotation)
    return by_text


def annotated_passages(data: Path, folds: Sequence[int]) -> list[Annotated]:
    """KnowledgeNet's passages of some folds, with the names that the recogniser finds in them."""
    texts = {text: of for text, of in passages(data).items() if of[0]["fold"] in folds}
    spans = NamedEntityRecogniser().recognise(list(texts))
    return [passage(text, of, found) for (text, of), found in zip(texts.items(), spans, strict=True)]


def passage(text: str, annotations: Sequence[Mapping[str, Any]], spans: Sequence[Span]) -> Annotated:
    """A passage with the names that a recogniser found and those of its facts, which are its own where both differ.

    Facts about a pronoun are left out: no recogniser finds it.
    """
    given: dict[tuple[int, int], str] = {}
    for annotation in annotations:
        if "subject" in annotation:
            type_, is_inverse = KNOWLEDGENET[annotation["property"]]
            sources, targets = RELATION_TYPES[type_]
            subject_types, object_types = (targets, sources) if is_inverse else (sources, targets)
            given.setdefault(tuple(annotation["subject"]), subject_types[0])
            given.setdefault(tuple(annotation["object"]), object_types[0])
    for span in spans:
        if (span.start, span.end) in given:
            given[span.start, span.end] = span.type
    found = {(span.start, span.end): span.type for span in spans if not _overlaps(span.start, span.end, given)} | given
    mentions = [
        Placed(start, end, type_, _named(text, (start, end)))
        for (start, end), type_ in sorted(found.items())
        if not _PRONOUN.fullmatch(text[start:end])
    ]
    named = [
        (_named(text, one["subject"]), _named(text, one["object"]), one) for one in annotations if "subject" in one
    ]
    facts = _mapped(
        ((subject, object_, KNOWLEDGENET[one["property"]]) for subject, object_, one in named),
        {mention.entity: mention.type for mention in mentions},
    )
    properties = {annotation["property"] for annotation in annotations} - NARROW
    return Annotated(text, mentions, facts, frozenset(KNOWLEDGENET[name][0] for name in properties))


def _starts(words: Sequence[str]) -> list[int]:
    """Where each word begins, with one space between them."""
    return [0, *accumulate(len(word) + 1 for word in words)]


def _named(text: str, span: Sequence[int]) -> str:
    return text[slice(*span)].casefold()


def _overlaps(start: int, end: int, given: Mapping[tuple[int, int], str]) -> bool:
    return any(start < other_end and other_start < end for other_start, other_end in given)
