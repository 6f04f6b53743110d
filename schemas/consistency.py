"""What a comparison of both stores and the status topic says: a line per difference, and a summary."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# head-missing             a store does not know the document, or has chunks of it and no head
# head-differs             the stores hold different states of the document
# incomplete               neither store has all chunks of the newest revision
# chunks-missing           less chunks answer than the head says there are
# chunks-left              chunks answer that should be gone: of another revision, or of a deleted document
# staged-left              chunks wait to answer, and the document is complete without them
# text-differs             the stores hold different texts of one chunk
# status-differs           the status topic says something else than both stores
# chunk-without-document   a chunk in the graph that belongs to no document
# edges-differ             a chunk in the graph has other numbers of mentions and relations than were written
# relation-without-chunk   a relation whose chunk is gone
# relation-unmentioned     a relation between entities of which its chunk does not mention both
# entity-unmentioned       an entity that nothing mentions
Kind = Literal[
    "head-missing",
    "head-differs",
    "incomplete",
    "chunks-missing",
    "chunks-left",
    "staged-left",
    "text-differs",
    "status-differs",
    "chunk-without-document",
    "edges-differ",
    "relation-without-chunk",
    "relation-unmentioned",
    "entity-unmentioned",
]
# wait                 it is in flight: a stage or a retry topic has records left to read
# replay               a dead letter stands in the way (`aegis dlq`)
# republish            its record, published again, mends it
# erase-and-republish  the same, after a delete: chunks without a head are in nobody's way otherwise
# sweep                nothing in the documents topic leads to it; the graph removes it
Remedy = Literal["wait", "replay", "republish", "erase-and-republish", "sweep"]


class Difference(BaseModel):
    """One thing that is not as it should be. What is None has nothing to say about it."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    document_id: str | None = None
    vectors: str | None = None
    graph: str | None = None
    status: str | None = None
    remedy: Remedy = "republish"
    held_version: int = Field(0, description="The newest version of the document that a store holds.")

    @property
    def is_in_flight(self) -> bool:
        """Whether it is no difference yet: the document is on its way."""
        return self.remedy == "wait"


class Summary(BaseModel):
    """How much has been compared. Several may be sent; the last one is ``done``."""

    documents: int = 0
    points: int = Field(0, description="Chunks in the vector store.")
    chunks: int = Field(0, description="Chunks in the graph.")
    entities: int = 0
    mentions: int = 0
    relations: int = 0
    differences: int = 0
    in_flight: int = Field(0, description="Lines about documents that are on their way.")
    status_read: bool = Field(True, description="Whether the status topic and the lag could be read.")
    is_cut: bool = Field(False, description="Whether the comparison stopped at the limit.")
    done: bool = False
