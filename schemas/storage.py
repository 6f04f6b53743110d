"""What the index side and the query side agree on: names, and what a point of the vector store carries.

A document's *head* is a point without vectors, so no search ever meets it; it names its document in a field of its
own, so that no filter for a document's chunks meets it either.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from schemas.fields import TERMS, fields_of, indexed
from schemas.ids import tenant_of
from schemas.records import Chunk, Revision

DENSE = "dense"
SPARSE = "bm25"
GRAPH = "graph"  # no vector: what search calls its way through the graph

DOCUMENT_ID = "document_id"
REVISION = "revision"
KIND = "kind"
TENANT = "tenant"
# As keywords: filtering by a bool is 15 times slower in Qdrant Edge.
KEYWORDS = (DOCUMENT_ID, REVISION, KIND, TENANT, TERMS)

LIVE = "chunk"
STAGED = "staged"
HEAD = "head"

SparseVector = tuple[list[int], list[float]]


def collection_name(model: str, dimension: int) -> str:
    """The collection for an embedding model: a different model never reads another's vectors.

    >>> collection_name("sentence-transformers/all-MiniLM-L6-v2", 384)
    'aegis-all-minilm-l6-v2-384'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")
    return f"aegis-{slug}-{dimension}"


class ChunkPayload(BaseModel):
    """Payload of a chunk's point. ``kind`` says whether it answers queries (``chunk``) or not yet (``staged``).

    ``tenant`` follows from the document's id; points from before there were tenants have none, and none sees them.
    ``metadata`` is JSON text: it comes from outside, and Qdrant Edge's payload storage breaks for good on objects
    nested more than 127 deep and rounds integers above 64 bits.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["chunk", "staged"]
    document_id: str
    tenant: str = ""
    version: int
    sequence: int
    revision: str
    chunk_index: int
    chunk_count: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    title: str | None
    source: str | None
    media_type: str
    metadata: str
    content_hash: str

    @classmethod
    def of(cls, chunk: Chunk, *, live: bool) -> Self:
        """The payload of ``chunk``'s point."""
        fields = chunk.model_dump(exclude={"kind", "metadata"})
        return cls(
            kind="chunk" if live else "staged",
            tenant=tenant_of(chunk.document_id),
            revision=str(chunk.revision),
            metadata=json.dumps(dict(chunk.metadata)),
            **fields,
        )

    def stored(self) -> dict[str, Any]:
        """The payload as it is written, with what the store's indexes narrow a filtered search by."""
        return self.model_dump() | indexed(fields_of(self, self.parsed_metadata()))

    def parsed_metadata(self) -> Mapping[str, Any]:
        """The document's metadata as published."""
        parsed: Mapping[str, Any] = json.loads(self.metadata)
        return parsed


class HeadPayload(BaseModel):
    """Payload of a document's head: the newest revision seen, and the one that answers queries."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["head"] = "head"
    head_of: str
    latest: Revision
    live: Revision | None
    complete: bool
    deleted: bool
    chunk_count: int
    content_hash: str | None
