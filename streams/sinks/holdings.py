"""What a store holds of a document, as far as two stores can be compared by it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streams.sinks.index import Head

PAGE = 64  # documents whose holdings are in memory at a time


class HeldChunk(NamedTuple):
    """A chunk in a store; ``text_digest`` is hexadecimal."""

    revision: str
    chunk_index: int
    is_live: bool
    text_digest: str


@dataclass(frozen=True)
class Holding:
    """A document's head and chunks, in order."""

    head: Head | None = None
    chunks: Sequence[HeldChunk] = ()


class Holdings(Protocol):
    """What a store can be asked for a comparison."""

    def document_ids(self) -> Iterator[list[str]]:
        """Pages of the documents that have a head or a chunk here, each document once."""

    def holdings(self, document_ids: Sequence[str]) -> dict[str, Holding]:
        """What is held of those documents; of at most ``PAGE`` of them."""


def text_digest(text: str) -> str:
    """BLAKE2b-64 of a chunk's text: both stores hold it as it was split."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def held_by_document(heads: dict[str, Head], chunks: Iterable[tuple[str, HeldChunk]]) -> dict[str, Holding]:
    """Holdings from heads and from chunks with their document's id."""
    by_document: dict[str, list[HeldChunk]] = {document_id: [] for document_id in heads}
    for document_id, chunk in chunks:
        by_document.setdefault(document_id, []).append(chunk)
    return {id_: Holding(heads.get(id_), tuple(sorted(held))) for id_, held in by_document.items()}
