"""What can be said without understanding: that a sentence names two entities together."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations

from processors.sentences import prose, sentences
from schemas.ids import entity_id
from schemas.records import Mention, Relation
from schemas.vocabulary import RELATED_TO

CONFIDENCE = 0.5
_MAX_RELATIONS = 32
_MAX_EVIDENCE = 300

Pair = tuple[str, str]


def related(
    text: str, mentions: Sequence[Mention], *, besides: Set[frozenset[str]] = frozenset()
) -> Iterator[Relation]:
    """RELATED_TO between entities that one sentence names, without a direction: the smaller id is the source.

    Dates are attributes and take no part. Pairs of which more is known, ``besides``, are left out.
    """
    places = list(sentences(_without_dates(prose(text), mentions)))
    starts = [start for start, _ in places]
    entities: dict[int, set[str]] = {}
    for mention in mentions:
        if mention.type != "DATE":
            sentence = bisect_right(starts, mention.start) - 1
            entities.setdefault(sentence, set()).add(entity_id(mention.type, mention.name))
    for (source, target), sentence in _pairs(entities, besides).items():
        evidence = " ".join(text[slice(*places[sentence])].split())[:_MAX_EVIDENCE]
        yield Relation(source=source, target=target, type=RELATED_TO, evidence=evidence, confidence=CONFIDENCE)


def _without_dates(text: str, mentions: Sequence[Mention]) -> str:
    """The dot of "21. Juli" ends no sentence."""
    for mention in mentions:
        if mention.type == "DATE":
            text = f"{text[: mention.start]}{' ' * (mention.end - mention.start)}{text[mention.end :]}"
    return text


def _pairs(entities: Mapping[int, set[str]], besides: Set[frozenset[str]]) -> dict[Pair, int]:
    """Each pair with the first sentence that names both."""
    pairs: dict[Pair, int] = {}
    for sentence, ids in entities.items():
        for source, target in combinations(sorted(ids), 2):
            if len(pairs) == _MAX_RELATIONS:
                return pairs
            if frozenset((source, target)) not in besides:
                pairs.setdefault((source, target), sentence)
    return pairs
