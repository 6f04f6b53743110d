"""What a language model is asked about chunks in one pass: what they name, and what they say of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from processors.asking import chunks_in
from processors.llm import Turn, fence, turn
from schemas.vocabulary import ENTITY_TYPES, RELATION_TYPES

VERSION = "v1"
MAX_TEXT = 4000
MAX_ENTITIES = 40  # of a chunk
MAX_RELATIONS = 32  # of a chunk

_MAX_EVIDENCE = 300
_PROMPT = (Path(__file__).parent / f"prompt_{VERSION}.txt").read_text(encoding="utf-8")
_COMPLAINT = "Your last answer did not fit: {complaint}. Answer again, in the shape that is asked for."
_RELATION_TYPES = "\n".join(
    f"  {type_}: {' or '.join(sources)} -> {' or '.join(targets)}"
    for type_, (sources, targets) in RELATION_TYPES.items()
)

PROMPT_CHARS = len(_PROMPT) + len(_RELATION_TYPES)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk's text."""

    text: str

    @property
    def chars(self) -> int:
        """How much room it takes in a question, about."""
        return len(self.text) + 40


class _Answered(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_extra={"additionalProperties": False})


class Named(_Answered):
    """An entity as the model gives it."""

    name: str
    type: str = Field(json_schema_extra={"enum": list(ENTITY_TYPES)})


class Claim(_Answered):
    """A relation as the model gives it; both ends are names."""

    evidence: str
    source: str
    type: str = Field(json_schema_extra={"enum": list(RELATION_TYPES)})
    target: str


class Reading(_Answered):
    """What the model says of one chunk."""

    chunk: int
    entities: tuple[Named, ...]
    relations: tuple[Claim, ...]


class _Answer(_Answered):
    chunks: list[Reading]


SCHEMA = _Answer.model_json_schema()


class Question:
    """Passages, numbered from 1, between fences that none of them can hold."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._texts = [passage.text for passage in passages]

    def turns(self, complaint: str) -> list[Turn]:
        """What is said to the model."""
        mark = fence(self._texts)
        prompt = _PROMPT.format(
            fence=mark,
            entity_types=", ".join(ENTITY_TYPES),
            types=_RELATION_TYPES,
            evidence=_MAX_EVIDENCE,
            entities=MAX_ENTITIES,
            relations=MAX_RELATIONS,
        )
        fenced = "\n".join(f"{mark} chunk {number}\n{text}" for number, text in enumerate(self._texts, 1))
        asked = [turn("system", prompt), turn("user", f"{fenced}\n{mark} end")]
        return [*asked, turn("user", _COMPLAINT.format(complaint=complaint))] if complaint else asked

    def answers(self, said: str) -> dict[int, Reading]:
        """As ``processors.asking.Question.answers``; nothing of it is checked against the text yet."""
        return {one.chunk: one for one in chunks_in(said, Reading) if 0 < one.chunk <= len(self._texts)}
