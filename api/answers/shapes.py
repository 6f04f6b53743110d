"""What is asked and what is answered, in the API's shapes."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.search import Freshness, RankedHit, SearchRequest
from api.search import Timings as SearchTimings
from processors.answers.sources import Citation

MAX_QUESTION = 4096
SessionId = Annotated[str, StringConstraints(pattern=r"^[\w.:@/-]{1,128}$")]
Outcome = Literal["generated", "partial", "extractive", "unknown"]


class Retrieval(SearchRequest):
    """How to search for passages; as ``/api/v1/search`` takes it."""

    query: Literal[""] = Field("", description="Not here: the question is searched for.")
    limit: int = Field(6, ge=1, le=20, description="Passages that the answer may stand on.")


class ChatRequest(BaseModel):
    """A question, alone or in a conversation."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"question": "How many days of leave are there?", "session_id": "desk-7"}},
    )

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUESTION)]
    session_id: SessionId | None = Field(None, description="A conversation to go on with, or to begin.")
    search: Retrieval = Retrieval()
    generate: bool = Field(True, description="Let the language model answer, where one is set; else quote.")
    cache: bool = Field(True, description="An answer given before may be given again.")


class AnswerSource(BaseModel):
    """A passage that the answer could stand on. ``suspicious``: orders in it that were kept from the language model."""

    number: int
    document_id: str
    version: int
    chunk_index: int
    start: int
    end: int
    title: str | None
    source: str | None
    text: str
    score: float
    suspicious: list[str]


class AnswerClaim(BaseModel):
    """A sentence of the answer: the sources that bear it out, or why it is ``unsupported``."""

    text: str
    citations: list[int]
    unsupported: str | None = None


class AnswerTimings(BaseModel):
    """Where the time went; ``generate_ms`` includes checking the claims."""

    rewrite_ms: float = 0.0
    search_ms: float = 0.0
    evidence_ms: float = 0.0
    generate_ms: float = 0.0
    total_ms: float = 0.0


class RouteStep(BaseModel):
    """What became of the thought to ask a language model: ``answered``, or why not."""

    model: str
    outcome: str


class Answer(BaseModel):
    """An answer; ``notes`` says what a reader has to know about it.

    ``outcome``: ``generated`` by ``model``, ``partial`` if that broke off, ``extractive`` if it is quotations alone,
    ``unknown`` if nothing that was found answers the question.
    """

    session_id: str
    question: str
    query: str = Field(description="What was searched for: in a conversation, the question that stands alone.")
    answer: str
    outcome: Outcome
    model: str | None
    route: list[RouteStep] | None = Field(None, description="With `search.explain`: who was thought of, in order.")
    claims: list[AnswerClaim]
    citations: list[Citation]
    sources: list[AnswerSource]
    notes: list[str]
    cached: bool = False
    timings: AnswerTimings
    freshness: Freshness


class SearchResults(BaseModel):
    """What was found."""

    query: str
    hits: list[RankedHit]
    timings: SearchTimings
    freshness: Freshness


class Said(BaseModel):
    """The next words of the answer; ``unsupported`` says why not to believe them."""

    text: str
    unsupported: str | None = None


class CitationFound(BaseModel):
    """What bears out the words before it."""

    citation: Citation


class Event(NamedTuple):
    """A step of an answer, as server-sent events name it."""

    name: Literal["search_results", "message", "citation", "final_answer"]
    body: BaseModel
