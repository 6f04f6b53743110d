"""How right the relation classifier is: what it says of texts with known facts, and counts of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from processors.relations.classifier import ClassifiedRelations, one_way
from processors.relations.pairs import SYMMETRIC, Placed
from training.relation_corpora import Annotated, Fact


@dataclass(frozen=True)
class Said:
    """A fact the classifier states of a text, with its score."""

    text: int
    fact: Fact
    score: float
    is_right: bool
    is_judged: bool
    """Whether the text would say so if it were wrong."""


@dataclass(frozen=True)
class Judged:
    """What was said of a set of texts, in any order, and the facts that there were to find: (text, fact)."""

    said: Sequence[Said]
    wanted: frozenset[tuple[int, Fact]]

    def above(self, thresholds: Mapping[str, float]) -> list[Said]:
        """What is as sure as its type's threshold, in scores, asks."""
        return [one for one in self.said if one.score >= thresholds.get(one.fact[2], float("inf"))]


def judged(classifier: ClassifiedRelations, texts: Sequence[Annotated]) -> Judged:
    """With the mentions given."""
    scored = classifier.scored([text.text for text in texts], [text.mentions for text in texts])
    said = []
    for number, (text, found) in enumerate(zip(texts, scored, strict=True)):
        for one in one_way(found, text.mentions):
            fact = _directed(text.mentions[one.source].entity, text.mentions[one.target].entity, one.type)
            said.append(Said(number, fact, one.score, fact in text.facts, one.type in text.judged))
    return Judged(said, _wanted(texts))


def judged_by_place(
    classifier: ClassifiedRelations, texts: Sequence[Annotated], found: Sequence[Sequence[Placed]]
) -> Judged:
    """With other mentions than the given ones; two are the same where they overlap."""
    scored = classifier.scored([text.text for text in texts], found)
    said = []
    for number, (text, mentions, of_text) in enumerate(zip(texts, found, scored, strict=True)):
        for one in one_way(of_text, mentions):
            sources = _same(text, mentions, mentions[one.source].entity)
            targets = _same(text, mentions, mentions[one.target].entity)
            facts = {_directed(source, target, one.type) for source in sources for target in targets}
            right = sorted(facts & text.facts)
            fact = right[0] if right else (f"?{one.source}", f"?{one.target}", one.type)
            said.append(Said(number, fact, one.score, bool(right), one.type in text.judged))
    return Judged(said, _wanted(texts))


def _wanted(texts: Sequence[Annotated]) -> frozenset[tuple[int, Fact]]:
    return frozenset((number, _directed(*fact)) for number, text in enumerate(texts) for fact in text.facts)


def _directed(source: str, target: str, type_: str) -> Fact:
    """Facts that read both ways count once."""
    if type_ in SYMMETRIC and target < source:
        return target, source, type_
    return source, target, type_


def _same(text: Annotated, mentions: Sequence[Placed], entity: str) -> set[str]:
    """The annotated entities with a mention where this entity has one."""
    spans = [(mention.start, mention.end) for mention in mentions if mention.entity == entity]
    return {
        mention.entity
        for mention in text.mentions
        if any(start < mention.end and mention.start < end for start, end in spans)
    }


def precision_recall(said: Iterable[Said], wanted: Iterable[tuple[int, Fact]]) -> tuple[float, float, float]:
    """Precision, recall, F1; a fact that is said twice is found once, and what cannot be judged is not wrong."""
    said, wanted = list(said), set(wanted)
    found = {(one.text, one.fact) for one in said if one.is_right}
    verdicts = [one.is_right for one in said if one.is_judged]
    precision = sum(verdicts) / max(len(verdicts), 1)
    recall = len(found & wanted) / max(len(wanted), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def of_type(type_: str, facts: Iterable[tuple[int, Fact]]) -> Iterator[tuple[int, Fact]]:
    """Those of one type."""
    return ((number, fact) for number, fact in facts if fact[2] == type_)
