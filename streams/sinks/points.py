"""What both vector stores write: the contents of their points, whatever the client library calls a point."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from processors.errors import PermanentError
from schemas.ids import chunk_id
from schemas.records import Chunk, EmbeddedChunk, Vector
from schemas.storage import DENSE, LIVE, ChunkPayload, HeadPayload
from streams.sinks.holdings import HeldChunk, text_digest
from streams.sinks.index import Head


class StoredChunk(NamedTuple):
    """A live chunk as the store holds it; ``vector`` is normalised, float32[dimension]."""

    document_id: str
    chunk_index: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    title: str | None
    source: str | None
    metadata: Mapping[str, Any]
    vector: Vector


def point_id(chunk: Chunk) -> str:
    """Id of the chunk's point."""
    return chunk_id(chunk.document_id, chunk.revision, chunk.chunk_index)


def checked_vector(item: EmbeddedChunk, *, model: str, dimension: int) -> list[float]:
    """The chunk's vector.

    Raises:
        PermanentError: It is another model's, or not a point in space.
    """
    name = f"chunk {item.chunk.chunk_index} of document {item.chunk.document_id!r}"
    if (item.model, item.dimension) != (model, dimension):
        raise PermanentError(
            f"{name} was embedded with {item.model} ({item.dimension} dimensions), but this store holds vectors of "
            f"{model} ({dimension}); embed the document anew"
        )
    vector = item.vector
    if not np.isfinite(vector).all():
        raise PermanentError(f"{name} has a vector with values that are no numbers")
    values: list[float] = vector.tolist()
    return values


def head_payload(document_id: str, head: Head) -> dict[str, Any]:
    """Payload of a document's head."""
    return HeadPayload(head_of=document_id, **asdict(head)).model_dump()


def head_from_payload(payload: Mapping[str, Any] | None) -> tuple[str, Head]:
    """A document's id and head."""
    fields = dict(HeadPayload.model_validate(payload))
    fields.pop("kind")
    return fields.pop("head_of"), Head(**fields)


def stored_chunk(payload: Mapping[str, Any] | None, vectors: Any) -> StoredChunk:
    """A live chunk from its point's payload and named vectors."""
    chunk = ChunkPayload.model_validate(payload)
    return StoredChunk(
        document_id=chunk.document_id,
        chunk_index=chunk.chunk_index,
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        headings=chunk.headings,
        title=chunk.title,
        source=chunk.source,
        metadata=chunk.parsed_metadata(),
        vector=np.asarray(vectors[DENSE], dtype=np.float32),
    )


# What ``held_chunk`` needs of a payload.
HELD = ("document_id", "revision", "chunk_index", "kind", "text")


def held_chunk(payload: Mapping[str, Any] | None) -> tuple[str, HeldChunk]:
    """A document's id, and its chunk as the stores are compared by it."""
    document_id, revision, index, kind, text = ((payload or {})[name] for name in HELD)
    return document_id, HeldChunk(revision, index, kind == LIVE, text_digest(text))


def of_documents(pages: Iterable[Sequence[Mapping[str, Any] | None]]) -> Iterator[list[str]]:
    """The documents of pages of head payloads."""
    for page in pages:
        yield [str((payload or {})["head_of"]) for payload in page]


def without_head(
    pages: Iterable[Sequence[Mapping[str, Any] | None]], heads: Callable[[Sequence[str]], Mapping[str, Head]]
) -> Iterator[list[str]]:
    """The documents of pages of chunk payloads that have no head, each once."""
    known: set[str] = set()
    for page in pages:
        ids = sorted({str((payload or {})["document_id"]) for payload in page} - known)
        found = heads(ids)
        missing = [document_id for document_id in ids if document_id not in found]
        known.update(missing)
        yield missing
