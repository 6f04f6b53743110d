"""Dead letters as operators and programs see them, and how they choose some."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from schemas.records import STAGES, StageName


class DeadLetter(BaseModel):
    """A dead letter as people see it; ``id`` is ``<stage>/<partition>/<offset>``."""

    id: str
    stage: StageName
    document_id: str | None
    error_class: str
    error: str
    attempt: int
    first_failed_at: float
    dead_lettered_at: float
    source: str
    correlation_id: str


class Backlog(BaseModel):
    """Unresolved dead letters of one stage; ``oldest`` is when the first one came, in seconds since the epoch."""

    stage: StageName
    count: int
    oldest: float | None


@dataclass(frozen=True)
class Filter:
    """Which dead letters; every given condition has to hold. Patterns are globs, times seconds since the epoch."""

    stages: Sequence[StageName] = STAGES
    ids: Sequence[str] = ()
    error_class: str | None = None
    error: str | None = None
    document: str | None = None
    since: float | None = None
    until: float | None = None
    prefix: str = ""
    """What the document's id begins with: a tenant's own."""

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter is meant."""
        return (
            (not self.ids or letter.id in self.ids)
            and _fits(self.error_class, letter.error_class)
            and _fits(self.error, letter.error)
            and _fits(self.document, letter.document_id or "")
            and (letter.document_id or "").startswith(self.prefix)
            and (self.since is None or letter.dead_lettered_at >= self.since)
            and (self.until is None or letter.dead_lettered_at < self.until)
        )


def stage_of(letter_id: str) -> StageName:
    """The stage in a dead letter's id.

    Raises:
        ValueError: It is no such id.
    """
    stage, *place = letter_id.split("/")
    if len(place) == 2 and all(part.isdecimal() for part in place):
        for name in STAGES:
            if name == stage:
                return name
    raise ValueError(f"{letter_id!r} is no dead letter's id; ids look like chunk/0/17 (see `aegis dlq list`)")


def _fits(pattern: str | None, text: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(text, pattern)
