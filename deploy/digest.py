"""One number for the content of a store: equal digests, equal content, in whatever order it was written."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deploy.stores import open_graph_store, open_vectors
from schemas.settings import Settings
from streams.sinks.points import StoredChunk


@dataclass(frozen=True)
class Digest:
    """Rows by kind and their digest: the sum of the rows' SHA-256: order does not matter, repetition does."""

    digest: str
    rows: dict[str, int]


def digests(settings: Settings) -> dict[str, Digest]:
    """Digests of both embedded stores' live content, without versions and without the floats of the vectors.

    The floats are left out because a vector's last bits depend on which other texts were in its batch.

    Raises:
        PipelineError: A store is in use by a running system, or cannot be opened.
    """
    vectors = open_vectors(settings).store
    try:
        of_vectors = digest_of(("chunk", *row) for row in _vector_rows(vectors.dump()))
    finally:
        vectors.close()
    graph = open_graph_store(settings)
    try:
        of_graph = digest_of(graph.dump())
    finally:
        graph.close()
    return {"vectors": of_vectors, "graph": of_graph}


def digest_of(rows: Iterable[tuple[Any, ...]]) -> Digest:
    """Digest of rows whose first element is their kind."""
    total, counts = 0, dict[str, int]()
    for row in rows:
        canonical = json.dumps(row, sort_keys=True, ensure_ascii=False, default=list).encode()
        total = (total + int.from_bytes(hashlib.sha256(canonical).digest())) % 2**256
        counts[str(row[0])] = counts.get(str(row[0]), 0) + 1
    return Digest(f"{total:064x}", counts)


def _vector_rows(rows: Iterable[StoredChunk]) -> Iterable[tuple[Any, ...]]:
    for chunk in rows:
        fields = chunk._asdict()
        del fields["vector"]
        yield tuple(fields.items())
