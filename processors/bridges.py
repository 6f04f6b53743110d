"""Names that lead from a question, and from its best passages, to passages that searches do not find.

A question such as "When was the director of Free Guy born?" has nothing in common with the passage that answers it:
the passage about Free Guy does, by the director's name. A *step* goes along such a name. What was tuned, on which
questions, and what did worse (personalised PageRank among it), docs/adr/0016 says.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from processors.dedup import folded
from processors.lexicon import ENGLISH_FUNCTION_WORDS, GERMAN_FUNCTION_WORDS
from schemas.ids import entity_id, normalised_name
from schemas.vocabulary import ENTITY_TYPES

PARENTS = 5
"""So many of the best passages are stepped from."""
MAX_PLACES = 30
"""A name that more passages mention leads nowhere in particular."""
GRAPH_WEIGHT = 0.3
"""What a step of weight 1 adds to a fused score."""
_FADE = 0.2  # a parent whose score is that far behind the best one's counts 1/e
_ASIDE = 0.5  # a passage that mentions a name, but does not begin with it
_OPENING_CHARS = 70
_MAX_WORDS = 64
_MAX_NAME_WORDS = 5
_FUNCTION_WORDS = ENGLISH_FUNCTION_WORDS | GERMAN_FUNCTION_WORDS


class Step(NamedTuple):
    """A way to a chunk along a name; ``weight`` is in (0, 1]."""

    chunk_id: str
    name: str
    weight: float


def possible_entities(question: str) -> dict[str, str]:
    """Ids of all entities that the question may name, with the name: every run of words as every type of name."""
    words = question.split()[:_MAX_WORDS]
    runs = {
        " ".join(words[first:last])
        for first in range(len(words))
        for last in range(first + 1, min(first + _MAX_NAME_WORDS, len(words)) + 1)
    }
    names = {name for run in runs if (name := normalised_name(run)) and not _FUNCTION_WORDS.issuperset(name.split())}
    people, others = ({folded(name, type_) for name in names} for type_ in ("PERSON", ""))
    return {
        entity_id(type_, name): name
        for type_ in ENTITY_TYPES
        if type_ != "DATE"
        for name in sorted(people if type_ == "PERSON" else others)
    }


def activations(scores: Sequence[float]) -> list[float]:
    """How much each parent counts, by its distance in score from the best one, which comes first and counts 1.

    >>> [round(one, 2) for one in activations([0.9, 0.9, 0.7])]
    [1.0, 1.0, 0.37]
    """
    return [math.exp((score - scores[0]) / _FADE) for score in scores]


def steps(name: str, places: Iterable[str], *, origins: Mapping[str | None, float]) -> Iterator[Step]:
    """The steps along a name.

    Args:
        name: The name.
        places: The chunks that mention it.
        origins: Where the steps start, with what that counts: a chunk, or None for the question. No step ends where
            it starts.
    """
    mentioned = set(places)
    for origin, activation in origins.items():
        others = mentioned - {origin}
        for chunk_id in others:
            yield Step(chunk_id, name, activation / math.sqrt(len(others)))


def most_promising(found: Iterable[Step], *, limit: int) -> list[Step]:
    """The steps to the ``limit`` chunks with the best ones, best first; equal ones by chunk and name."""
    ordered = sorted(found, key=lambda step: (-step.weight, step))
    kept = set(list(dict.fromkeys(step.chunk_id for step in ordered))[:limit])
    return [step for step in ordered if step.chunk_id in kept]


def evidence(found: Iterable[Step], passages: Mapping[str, tuple[str | None, str]]) -> dict[str, float]:
    """What the best step to each passage is worth: its weight, half of it where the name comes up aside.

    Args:
        found: Steps. Those to other passages count nothing.
        passages: Title and text by chunk id.
    """
    openings = {
        id_: f" {_folded(title or '')} {_folded(text[:_OPENING_CHARS])} " for id_, (title, text) in passages.items()
    }
    best: dict[str, float] = {}
    for step in found:
        if step.chunk_id in openings:
            worth = step.weight * (1 if f" {step.name} " in openings[step.chunk_id] else _ASIDE)
            best[step.chunk_id] = max(best.get(step.chunk_id, 0.0), worth)
    return best


def _folded(text: str) -> str:
    return folded(normalised_name(text), "")
