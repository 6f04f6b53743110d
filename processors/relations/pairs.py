"""Pairs of mentions as the relation classifier sees them: word pieces, and where among them the two names stand."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from processors.sentences import sentences
from schemas.vocabulary import RELATED_TO, RELATION_TYPES

TYPES = tuple(name for name in RELATION_TYPES if name != RELATED_TO)
SYMMETRIC = frozenset({"SPOUSE_OF", "SIBLING_OF"})
CLASSES = ("PERSON", "ORG", "LOC", "DATE", "MISC")
KINDS = 1 + 2 * len(CLASSES)
"""Of a piece: in no mention, or the first or a later one of a mention of each class."""
ZONES = 10
"""Of a piece, seen from a pair; see ``Pairs.zones``."""
DISTANCES = 40

MAX_PIECES = 510
MAX_PAIRS = 512
_MENTION_PAIRS = 3  # of one pair of entities
_GAPS = (3, 8, 16, 32)  # pieces; from each on a pair counts as farther apart

Numbers = NDArray[np.int64]

_CLASS_OF = {name: number for number, name in enumerate(CLASSES)} | {"NORP": CLASSES.index("LOC")}
_OTHER = CLASSES.index("MISC")


def class_of(type_: str) -> int:
    """What the classifier sees of an entity's type: its place in ``CLASSES``."""
    return _CLASS_OF.get(type_, _OTHER)


def _joinable() -> NDArray[np.bool_]:
    table = np.zeros((len(CLASSES), len(CLASSES)), bool)
    for sources, targets in (RELATION_TYPES[name] for name in TYPES):
        table[np.ix_([class_of(type_) for type_ in sources], [class_of(type_) for type_ in targets])] = True
    return table


_JOINABLE = _joinable()


@dataclass(frozen=True, slots=True)
class Placed:
    """A mention in a text: characters ``start`` to ``end``, and which entity it names."""

    start: int
    end: int
    type: str
    entity: str


@dataclass(frozen=True)
class Pairs:
    """A text's pieces, separators included, and the pairs of its mentions that a relation may join.

    The pairs that have the same two entities follow one another, at most three of them, the closest ones.
    """

    ids: Numbers  # [pieces]
    kinds: Numbers  # [pieces]
    spans: Numbers  # [mentions, 2], first piece and the one behind the last
    classes: Numbers  # [mentions]
    mentions: Numbers  # [mentions], their places in what was given
    pairs: Numbers  # [pairs, 2], source and target among the mentions
    distances: Numbers  # [pairs]

    @property
    def pair_classes(self) -> Numbers:
        """Of each pair, the classes of both ends as one number: [pairs]."""
        return np.asarray(self.classes[self.pairs] @ [len(CLASSES), 1], np.int64)

    @cached_property
    def zones(self) -> Numbers:
        """Where each piece stands: before both, in the source, between, in the target, behind both: [pairs, pieces].

        0 to 4 where the source comes first, 5 to 9 where the target does.
        """
        source, target = (self.spans[self.pairs[:, end]] for end in (0, 1))
        first, second = np.minimum(source, target), np.maximum(source, target)
        pieces = np.arange(len(self.ids))
        zones = np.where(pieces < first[:, :1], 0, np.where(pieces < second[:, 1:], 2, 4))
        for span, zone in ((source, 1), (target, 3)):
            zones[(pieces >= span[:, :1]) & (pieces < span[:, 1:])] = zone
        flipped = target[:, :1] < source[:, :1]
        return np.asarray(zones + 5 * flipped, np.int64)


def pairs_of(text: str, encoding: Encoding, mentions: Sequence[Placed]) -> Pairs:
    """Pairs in a text, from its encoding without special tokens; what lies behind ``MAX_PIECES`` is not read."""
    offsets = np.array(encoding.offsets[:MAX_PIECES], np.int64).reshape(-1, 2)
    limit = int(offsets[-1, 1]) if len(offsets) else 0
    kept = [place for place, mention in enumerate(mentions) if mention.end <= limit]
    chosen = [mentions[place] for place in kept]
    firsts = np.searchsorted(offsets[:, 1], [mention.start for mention in chosen], "right") + 1
    behinds = np.searchsorted(offsets[:, 0], [mention.end for mention in chosen], "left") + 1
    spans = np.stack([firsts, np.maximum(behinds, firsts + 1)], 1).astype(np.int64)
    classes = np.array([class_of(mention.type) for mention in chosen], np.int64)
    ids = np.array([101, *encoding.ids[:MAX_PIECES], 102], np.int64)
    kinds = np.zeros_like(ids)
    for (first, behind), class_ in zip(spans, classes, strict=True):
        kinds[first:behind] = 2 + 2 * class_
        kinds[first] = 1 + 2 * class_
    pairs, gaps = _closest(spans, classes, [mention.entity for mention in chosen])
    distances = _distances(text, chosen, spans, pairs, gaps)
    return Pairs(ids, kinds, spans, classes, np.array(kept, np.int64), pairs, distances)


def _closest(spans: Numbers, classes: Numbers, entities: Sequence[str]) -> tuple[Numbers, Numbers]:
    """The pairs to score, and how many pieces lie between their mentions."""
    number = {entity: place for place, entity in enumerate(dict.fromkeys(entities))}
    entity = np.array([number[name] for name in entities], np.int64)
    gap = np.maximum(spans[:, :1] - spans[:, 1], spans[:, 0] - spans[:, 1:]).clip(0)
    source, target = np.nonzero(_JOINABLE[classes[:, None], classes] & (entity[:, None] != entity))
    gaps, both = gap[source, target], entity[source] * len(number) + entity[target]
    order = np.lexsort((gaps, both))
    both = both[order]
    rank = np.arange(len(both)) - np.searchsorted(both, both)
    order = order[rank < _MENTION_PAIRS]
    if len(order) > MAX_PAIRS:
        order = order[np.sort(np.argsort(gaps[order], kind="stable")[:MAX_PAIRS])]
    return np.stack([source[order], target[order]], 1), gaps[order]


def _distances(text: str, mentions: Sequence[Placed], spans: Numbers, pairs: Numbers, gaps: Numbers) -> Numbers:
    """Of each pair, as one number: who comes first, how many sentences and how many pieces lie between."""
    starts = [start for start, _ in sentences(text)]
    sentence = np.array([bisect_right(starts, mention.start) for mention in mentions], np.int64)
    source, target = pairs[:, 0], pairs[:, 1]
    between = np.abs(sentence[source] - sentence[target]).clip(0, 3)
    flipped = (spans[target, 0] < spans[source, 0]).astype(np.int64)
    return np.asarray((flipped * 4 + between) * 5 + np.digitize(gaps, _GAPS), np.int64)
