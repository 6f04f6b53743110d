"""What the API answers, as far as callers read it; a test compares it with the OpenAPI document."""

from typing import Any, Literal, TypedDict

DocumentState = Literal["processing", "searchable", "indexed", "deleted", "retrying", "dead-lettered"]


class Accepted(TypedDict):
    """A document is in the log."""

    document_id: str
    version: int
    correlation_id: str
    status_url: str


class Removed(TypedDict):
    """A removal is in the log."""

    document_id: str
    version: int


class StageStatus(TypedDict):
    """What one stage said last of a document."""

    state: str
    version: int
    at: float
    chunk_count: int | None
    error: str | None


class Status(TypedDict):
    """Where a document is: ``version`` is the newest known, ``searchable_version`` the one that answers."""

    document_id: str
    version: int
    state: DocumentState
    error: str | None
    searchable_version: int | None
    stages: dict[str, StageStatus]


class RankedHit(TypedDict):
    """A chunk that was found: ``start`` and ``end`` are offsets in the document's converted text."""

    rank: int
    score: float
    chunk_id: str
    document_id: str
    version: int
    chunk_index: int
    text: str
    start: int
    end: int
    title: str | None
    source: str | None
    metadata: dict[str, Any]


class Freshness(TypedDict):
    """Seconds that each index is behind, null where that is not known."""

    lag_seconds: dict[str, float | None]


class SearchResponse(TypedDict):
    """Hits, best first; ``degraded`` names what was asked and did not answer in time."""

    query: str
    hits: list[RankedHit]
    next_offset: int | None
    reranked: bool
    degraded: list[str]
    took_ms: float
    freshness: Freshness


class Citation(TypedDict):
    """Where an answer takes something from."""

    number: int
    document_id: str
    version: int
    start: int
    end: int
    quote: str


class AnswerClaim(TypedDict):
    """A sentence, the sources that bear it out, or why none does."""

    text: str
    citations: list[int]
    unsupported: str | None


class AnswerSource(TypedDict):
    """A passage that the answer could stand on."""

    number: int
    document_id: str
    version: int
    title: str | None
    text: str
    score: float
    suspicious: list[str]


class Answer(TypedDict):
    """An answer; ``notes`` says what a reader has to know about it."""

    session_id: str
    question: str
    query: str
    answer: str
    outcome: Literal["generated", "partial", "extractive", "unknown"]
    model: str | None
    claims: list[AnswerClaim]
    citations: list[Citation]
    sources: list[AnswerSource]
    notes: list[str]
    cached: bool
    freshness: Freshness


class Entity(TypedDict):
    """Somebody or something that documents mention."""

    id: str
    name: str
    type: str
    display: str
    mention_count: int
    chunk_count: int


class GroupLag(TypedDict):
    """How far a stage is behind, in records and in seconds."""

    group: str
    stage: str
    topic: str
    records: int | None
    seconds: float | None
    verdict: str


class DeadLetter(TypedDict):
    """A record that a stage gave up; ``id`` is ``<stage>/<partition>/<offset>``."""

    id: str
    stage: str
    document_id: str | None
    error_class: str
    error: str
    attempt: int
    correlation_id: str


class Group(TypedDict):
    """Dead letters of one stage with one reason."""

    stage: str
    error_class: str
    error: str
    count: int


class DeadLetterList(TypedDict):
    """The oldest of those that match, and all that match by reason."""

    dead_letters: list[DeadLetter]
    groups: list[Group]
    total: int


class Resolved(TypedDict):
    """What was replayed, or would have been."""

    dead_letters: list[DeadLetter]
    dry_run: bool
