"""An answer on its way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.access.principals import Principal
from api.answers.budget import Budget
from api.answers.shapes import AnswerClaim, ChatRequest, CitationFound, Event, Outcome, Said
from api.answers.words import Words
from api.ports import Reply
from api.search import SearchResponse
from processors.answers.prompts import Exchange
from processors.answers.sources import Citation


@dataclass(frozen=True)
class Asked:
    """A question as it goes through.

    ``history`` is what was said before it; an empty ``session_id`` means that the client remembers for itself.
    It is about the caller's documents.
    """

    request: ChatRequest
    session_id: str
    history: Sequence[Exchange]
    caller: Principal


@dataclass
class State:
    """What is known of an answer so far."""

    asked: Asked
    budget: Budget
    words: Words
    query: str = ""
    found: SearchResponse | None = None
    said: str = ""
    outcome: Outcome = "unknown"
    reply: Reply | None = None
    claims: list[AnswerClaim] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_degraded: bool = False

    def follow(self, reply: Reply) -> None:
        """The language model is asked."""
        self.reply = reply

    def note(self, note: str) -> None:
        """Tell the reader, once."""
        if note not in self.notes:
            self.notes.append(note)

    def cite(self, text: str, citations: Sequence[Citation], unsupported: str | None = None) -> list[Event]:
        """Note a claim; the events that tell of it."""
        self.said += text
        numbers = [citation.number for citation in citations]
        self.claims.append(AnswerClaim(text=text.strip(), citations=numbers, unsupported=unsupported))
        new = [citation for citation in citations if citation not in self.citations]
        self.citations += new
        said = Event("message", Said(text=text, unsupported=unsupported))
        return [said, *(Event("citation", CitationFound(citation=citation)) for citation in new)]
