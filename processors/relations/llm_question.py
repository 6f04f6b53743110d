"""What a language model is asked about chunks, and what may be taken of its answer."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from processors.asking import chunks_in
from processors.llm import Turn, fence, turn
from schemas.ids import entity_id
from schemas.records import Mention, Relation
from schemas.vocabulary import RELATION_TYPES, fits

VERSION = "v1"

_PROMPT = (Path(__file__).parent / f"llm_{VERSION}.txt").read_text(encoding="utf-8")
_COMPLAINT = "Your last answer did not fit: {complaint}. Answer again, in the shape that is asked for."
_TYPES = "\n".join(
    f"  {type_}: {' or '.join(sources)} -> {' or '.join(targets)}"
    for type_, (sources, targets) in RELATION_TYPES.items()
)
MAX_RELATIONS = 32  # of a chunk
_MAX_TEXT = 4000
_MAX_ENTITIES = 40
_MAX_EVIDENCE = 300
_CONFIDENCE = 0.8  # a model's own number says little (Xiong et al. 2024), and costs tokens

_WORD = re.compile(r"\w+")

PROMPT_CHARS = len(_PROMPT) + len(_TYPES)

Misfit = Literal["number", "type", "ends", "evidence", "excess"]


@dataclass(frozen=True, slots=True)
class Entity:
    """One end of a relation."""

    id: str
    type: str
    names: tuple[str, ...]  # as the text has them

    def __str__(self) -> str:
        return f"{self.type} {' '.join(self.names[0].split())}"


@dataclass(frozen=True, slots=True)
class Passage:
    """What a question holds of a chunk."""

    text: str
    entities: tuple[Entity, ...]

    @property
    def chars(self) -> int:
        """How much room it takes in a question, about."""
        return len(self.text) + sum(len(str(entity)) + 4 for entity in self.entities) + 40


def passage_of(text: str, mentions: Sequence[Mention]) -> Passage:
    """A text, cut, with the entities that its mentions name in what is left of it."""
    names: dict[tuple[str, str], list[str]] = {}
    for mention in mentions:
        if mention.end <= _MAX_TEXT:
            names.setdefault((mention.type, mention.name), []).append(mention.text)
    entities = [Entity(entity_id(*key), key[0], tuple(dict.fromkeys(found))) for key, found in names.items()]
    return Passage(text[:_MAX_TEXT], tuple(entities[:_MAX_ENTITIES]))


class Claim(BaseModel):
    """A relation as the model gives it."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    evidence: str
    source: int
    type: str = Field(json_schema_extra={"enum": list(RELATION_TYPES)})
    target: int


class _OfChunk(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    chunk: int
    relations: list[Claim]


class _Answer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    chunks: list[_OfChunk]


SCHEMA = _Answer.model_json_schema()


class Question:
    """Passages, numbered from 1, and their entities, numbered on through all of them: a number has one place.

    Args:
        passages: What is asked about.
        dropped: Told why a relation that the model claims is not taken.
    """

    def __init__(self, passages: Sequence[Passage], *, dropped: Callable[[Misfit], None]) -> None:
        self.passages = dict(enumerate(passages, 1))
        self._dropped = dropped
        numbers = count(1)
        self.entities = {
            number: {next(numbers): entity for entity in passage.entities} for number, passage in self.passages.items()
        }

    def turns(self, complaint: str) -> list[Turn]:
        """What is said to the model."""
        contents = [self._content(number) for number in self.passages]
        mark = fence(contents)
        fenced = "\n".join(f"{mark} chunk {number}\n{content}" for number, content in enumerate(contents, 1))
        asked = [
            turn("system", _PROMPT.format(fence=mark, types=_TYPES, evidence=_MAX_EVIDENCE, relations=MAX_RELATIONS)),
            turn("user", f"{fenced}\n{mark} end"),
        ]
        return [*asked, turn("user", _COMPLAINT.format(complaint=complaint))] if complaint else asked

    def _content(self, number: int) -> str:
        entities = "\n".join(f"{place} {entity}" for place, entity in self.entities[number].items())
        return f"entities:\n{entities}\ntext:\n{self.passages[number].text}"

    def answers(self, said: str) -> dict[int, tuple[Relation, ...]]:
        """As ``processors.asking.Question.answers``: the relations of a chunk that fit its own text and entities."""
        found = {one.chunk: one.relations for one in chunks_in(said, _OfChunk) if one.chunk in self.passages}
        return {
            number: tuple(self._taken(claims, self.entities[number], self.passages[number].text))
            for number, claims in found.items()
        }

    def _taken(self, claims: Sequence[Claim], entities: Mapping[int, Entity], text: str) -> Iterator[Relation]:
        taken: set[tuple[int, str, int]] = set()
        for claim in claims:
            evidence = evidence_in(text, claim.evidence)
            why = "excess" if len(taken) == MAX_RELATIONS else misfit(claim, entities, evidence)
            key = claim.source, claim.type, claim.target
            if why:
                self._dropped(why)
            elif key not in taken:
                taken.add(key)
                ends = entities[claim.source].id, entities[claim.target].id
                yield Relation(
                    source=ends[0], target=ends[1], type=claim.type, evidence=evidence, confidence=_CONFIDENCE
                )


def misfit(claim: Claim, entities: Mapping[int, Entity], evidence: str) -> Misfit | None:
    """Why a claim is not taken, with what the text has of its evidence; None where it fits."""
    source, target = entities.get(claim.source), entities.get(claim.target)
    if source is None or target is None or source is target:
        return "number"
    if claim.type not in RELATION_TYPES:
        return "type"
    if not fits(claim.type, source.type, target.type):
        return "ends"
    return None if any(name in evidence for name in (*source.names, *target.names)) else "evidence"


def evidence_in(text: str, quote: str) -> str:
    """The text's own words that a quote repeats, whatever it made of case, marks and space; empty where it has none."""
    words = _WORD.findall(quote)
    found = words and re.search(r"\W+".join(words), text, re.IGNORECASE)
    return found[0][:_MAX_EVIDENCE] if found else ""
