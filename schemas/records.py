"""The records that travel through Kafka, in the order a document meets them.

Every model is frozen and refuses unknown fields: a record that does not fit is dead-lettered with the
field's name, never half understood.
"""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

StageName = Literal["chunk", "embed", "extract", "index-vectors", "index-graph"]
STAGES: tuple[StageName, ...] = ("chunk", "embed", "extract", "index-vectors", "index-graph")

MAX_DOCUMENT_ID = 512
DocumentId = Annotated[str, Field(min_length=1, max_length=MAX_DOCUMENT_ID, pattern=r"^[^\x00-\x1f\x7f]+$")]
Version = Annotated[int, Field(ge=0, lt=2**63)]
Vector = NDArray[np.float32]


class Revision(NamedTuple):
    """One state of a document. Revisions order: by version, then by the offset the document was read at.

    ``sequence`` decides between two updates that carry the same version (the same millisecond, say): the
    later one in the log is the newer one.
    """

    version: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.version}.{self.sequence}"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DocumentRecord(_Record):
    """What a producer publishes to ``aegis.documents.v1``, keyed by ``document_id``. A null value is a delete."""

    document_id: DocumentId
    operation: Literal["upsert", "delete"] = "upsert"
    text: str | None = Field(None, description="The document as text.")
    content_base64: str | None = Field(None, description="The document as a file's bytes, in base64.")
    content_uri: str | None = Field(
        None, max_length=2048, description="Where the file lies in the blob store (claim check)."
    )
    media_type: str = Field("text/plain", max_length=255, description="RFC 6838 media type of the content.")
    title: str | None = Field(None, max_length=1024)
    source: str | None = Field(None, max_length=2048, description="Where the document comes from, for people.")
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    version: Version | None = Field(
        None, description="Orders a document's states; by default the record's Kafka timestamp in ms."
    )

    @model_validator(mode="after")
    def _exactly_one_content(self) -> Self:
        given = [name for name in ("text", "content_base64", "content_uri") if getattr(self, name) is not None]
        if self.operation == "upsert" and len(given) != 1:
            raise ValueError(
                f"an upsert carries exactly one of text, content_base64, content_uri; this one carries "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.operation == "delete" and given:
            raise ValueError(f"a delete carries no content; this one carries {' and '.join(given)}")
        return self


class _OfDocument(_Record):
    document_id: DocumentId
    version: Version
    sequence: int = Field(0, ge=0, description="Offset of the document's record; decides between equal versions.")

    @property
    def revision(self) -> Revision:
        """The state of the document that this record belongs to."""
        return Revision(self.version, self.sequence)


class Chunk(_OfDocument):
    """A piece of a document. ``start`` and ``end`` are character offsets into the converted text."""

    kind: Literal["chunk"] = "chunk"
    chunk_index: int = Field(ge=0)
    chunk_count: int = Field(ge=1)
    text: str = Field(min_length=1)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    headings: tuple[str, ...] = Field((), description="The headings above the chunk, outermost first.")
    content_hash: str = Field(description="Of the document's content and the processing settings.")
    media_type: str = "text/plain"
    title: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def contextual_text(self) -> str:
        """What is embedded and indexed: the text below its title and headings (at most 160 characters of them)."""
        context = " › ".join(dict.fromkeys(part for part in (self.title, *self.headings) if part))[:160]
        return f"{context}\n{self.text}" if context else self.text


class Mark(_OfDocument):
    """A document's change that carries no chunk: it is deleted, or published again unchanged."""

    kind: Literal["mark"] = "mark"
    operation: Literal["delete", "touch"]
    content_hash: str | None = None
    chunk_count: int = Field(0, ge=0)


class EmbeddedChunk(_Record):
    """A chunk with its vector: little-endian float32 in base64, so that any Kafka UI can read the rest."""

    kind: Literal["embedded"] = "embedded"
    chunk: Chunk
    model: str
    dimension: int = Field(ge=1)
    vector_base64: str

    @model_validator(mode="after")
    def _vector_fits(self) -> Self:
        if len(base64.b64decode(self.vector_base64, validate=True)) != 4 * self.dimension:
            raise ValueError(f"vector_base64 does not hold {self.dimension} float32 values")
        return self

    @property
    def vector(self) -> Vector:
        """float32[dimension]."""
        return np.frombuffer(base64.b64decode(self.vector_base64), dtype="<f4")

    @classmethod
    def of(cls, chunk: Chunk, vector: Vector, model: str) -> Self:
        """Pair a chunk with its vector, float32[dimension]."""
        raw = vector.astype("<f4", copy=False).tobytes()
        return cls(chunk=chunk, model=model, dimension=len(vector), vector_base64=base64.b64encode(raw).decode())


class Mention(_Record):
    """A span of a chunk's text that names an entity. Offsets are characters into the chunk's text."""

    start: int = Field(ge=0)
    end: int = Field(ge=1)
    text: str
    name: str = Field(description="Normalised name; with the type it is the entity's exact key.")
    type: str
    confidence: float = Field(1.0, ge=0, le=1)


class Relation(_Record):
    """A typed edge between two entities of one chunk, with the sentence that says so."""

    source: str = Field(description="Entity id.")
    target: str = Field(description="Entity id.")
    type: str
    evidence: str = ""
    confidence: float = Field(1.0, ge=0, le=1)


class Extraction(_Record):
    """A chunk with what was found in it. ``pipeline`` names the phases that ran."""

    kind: Literal["extraction"] = "extraction"
    chunk: Chunk
    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()
    pipeline: str = "rules"


Verdict = Literal["same", "apart", "open"]


class Decision(_Record):
    """What a person decided about two entities; ``open`` takes an earlier decision back. The newest of a pair counts.

    It travels to the graph behind the extractions, keyed by the pair, so that a graph that is built anew learns it too.
    """

    kind: Literal["decision"] = "decision"
    first: str = Field(min_length=36, max_length=36, description="Entity id.")
    second: str = Field(min_length=36, max_length=36, description="Entity id.")
    verdict: Verdict
    reason: str = Field(min_length=1, max_length=1000)
    version: Version

    @model_validator(mode="after")
    def _about_two(self) -> Self:
        if self.first == self.second:
            raise ValueError("a decision is about two entities; first and second are the same one")
        return self


State = Literal["chunked", "embedded", "extracted", "indexed", "deleted", "unchanged", "retrying", "dead-lettered"]


class StatusRecord(_OfDocument):
    """Where a document is, by one stage. The topic is compacted by (document, stage)."""

    stage: StageName
    state: State
    at: float = Field(description="Seconds since the epoch, the stage's clock.")
    chunk_count: int | None = None
    content_hash: str | None = None
    error: str | None = Field(None, description="Why, in words a person understands.")
    pipeline: str | None = Field(None, description="Who read the document's last chunk, if it is extracted.")
    degraded: str | None = Field(
        None, description="Phases of extraction whose first choice could not say anything of that chunk, with why."
    )


ChunkRecord = Annotated[Chunk | Mark, Field(discriminator="kind")]
EmbeddingRecord = Annotated[EmbeddedChunk | Mark, Field(discriminator="kind")]
ExtractionRecord = Annotated[Extraction | Mark | Decision, Field(discriminator="kind")]
