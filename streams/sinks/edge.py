"""Qdrant Edge, the vector store of a single machine: the Qdrant engine in this process, one process per folder.

Measured with qdrant-edge-py 0.9: no call releases the GIL. Calls of several threads therefore never overlap and need
no lock, but each one stands the whole process still, so writes go in small pieces and nothing is optimised while
running. Search is exact; no HNSW graph is built.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from processors.errors import PermanentError, TransientError, UnavailableError
from schemas.fields import ORDINALS
from schemas.ids import head_id
from schemas.records import EmbeddedChunk, Revision
from schemas.storage import (
    DENSE,
    DOCUMENT_ID,
    HEAD,
    KEYWORDS,
    KIND,
    LIVE,
    REVISION,
    SPARSE,
    STAGED,
    ChunkPayload,
    SparseVector,
)
from streams.sinks.holdings import PAGE, Holding, held_by_document
from streams.sinks.index import Head
from streams.sinks.points import (
    HELD,
    StoredChunk,
    checked_vector,
    head_from_payload,
    head_payload,
    held_chunk,
    of_documents,
    point_id,
    stored_chunk,
    without_head,
)

_POINTS_PER_UPDATE = 64
_POINTS_PER_FLUSH = 5_000  # what is not flushed is replayed from the write-ahead log at the next start
_POINTS_PER_SCROLL = 256
_RESERVED_BYTES = 256 * 2**20
_WORLD = ("no space left", "os error", "out of memory", "not initialized")


def open_shard(folder: Path, *, model: str, dimension: int) -> edge.EdgeShard:
    """Open the vector store in ``folder``, creating it when there is none, and compact it when a fifth is deleted.

    Raises:
        ValueError: The folder holds vectors of another model or dimension.
        UnavailableError: Another process has it open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, model=model, dimension=dimension)
    shard_folder = folder / "shard"
    if not shard_folder.exists():
        _create(shard_folder, dimension)
    try:
        shard = edge.EdgeShard.load(str(shard_folder), _config(dimension))
    except Exception as error:
        if "WouldBlock" in str(error):
            raise UnavailableError(f"another process has the vector store in {folder} open") from error
        raise
    _index(shard)
    shard.optimize()
    return shard


class EdgeVectorStore:
    """Write side of the vector store in this process."""

    def __init__(
        self,
        shard: edge.EdgeShard,
        encode_sparse: Callable[[str], SparseVector],
        *,
        folder: Path,
        model: str,
        dimension: int,
        reserved_bytes: int = _RESERVED_BYTES,
    ) -> None:
        self._shard = shard
        self._encode_sparse = encode_sparse
        self._folder = folder
        self._model = model
        self._dimension = dimension
        self._reserved_bytes = reserved_bytes
        self._unflushed = 0

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        """The heads of those documents that have one."""
        ids: list[edge.PointId] = [head_id(document_id) for document_id in document_ids]
        with _translated():
            points = self._shard.retrieve(ids, True, False)
        return dict(head_from_payload(point.payload) for point in points)

    def write(self, heads: Mapping[str, Head], items: Sequence[EmbeddedChunk], *, live: bool) -> None:
        """Upsert heads, then chunks; on return they survive a kill, though not yet a power failure."""
        self._check_disk()
        points = [
            edge.Point(head_id(document_id), {}, head_payload(document_id, head)) for document_id, head in heads.items()
        ]
        with _translated():
            points += [self._point(item, live=live) for item in items]
        for first in range(0, len(points), _POINTS_PER_UPDATE):
            self._update(edge.UpdateOperation.upsert_points(points[first : first + _POINTS_PER_UPDATE]))
        self._unflushed += len(points)
        if self._unflushed >= _POINTS_PER_FLUSH:
            self._flush()

    def held(self, document_id: str, revision: Revision) -> int:
        """Number of chunks held of that revision."""
        request = edge.CountRequest(exact=True, filter=_chunks_of(document_id, _is(REVISION, str(revision))))
        with _translated():
            return self._shard.count(request)

    def make_live(self, document_id: str, revision: Revision) -> None:
        """Let that revision answer, then remove every other revision of the document."""
        newest = _is(REVISION, str(revision))
        self._update(
            edge.UpdateOperation.set_payload_by_filter(_chunks_of(document_id, newest), {KIND: LIVE}),
            edge.UpdateOperation.delete_points_by_filter(_chunks_of(document_id, but=newest)),
        )

    def erase(self, document_id: str) -> None:
        """Remove every chunk of the document; the head stays."""
        self._update(edge.UpdateOperation.delete_points_by_filter(_chunks_of(document_id)))

    def dump(self) -> Iterator[StoredChunk]:
        """Every live chunk, in the order of the points' ids, a few hundred in memory at a time."""
        live = edge.Filter(must=[_is(KIND, LIVE)])
        offset = None
        while True:
            request = edge.ScrollRequest(
                offset=offset, limit=_POINTS_PER_SCROLL, filter=live, with_payload=True, with_vector=[DENSE]
            )
            with _translated():
                points, offset = self._shard.scroll(request)
            yield from (stored_chunk(point.payload, point.vector) for point in points)
            if offset is None:
                return

    def staged(self) -> int:
        """Number of chunks that do not answer queries yet."""
        with _translated():
            return self._shard.count(edge.CountRequest(exact=True, filter=edge.Filter(must=[_is(KIND, STAGED)])))

    def document_ids(self) -> Iterator[list[str]]:
        """Pages of the documents that have a head here, then of those that have chunks and none."""
        heads = edge.Filter(must=[_is(KIND, HEAD)])
        yield from of_documents(self._payloads(heads, ["head_of"], limit=PAGE))
        yield from without_head(self._payloads(_CHUNKS, [DOCUMENT_ID], limit=PAGE), self.heads)

    def holdings(self, document_ids: Sequence[str]) -> dict[str, Holding]:
        """What is held of those documents."""
        of = edge.FieldCondition(key=DOCUMENT_ID, match=edge.MatchAny(list(document_ids)))
        pages = self._payloads(edge.Filter(must=[of]), list(HELD), limit=_POINTS_PER_SCROLL)
        return held_by_document(self.heads(document_ids), (held_chunk(payload) for page in pages for payload in page))

    def close(self) -> None:
        """Flush and release."""
        self._flush()
        self._shard.close()

    def _payloads(self, which: edge.Filter, fields: list[str], *, limit: int) -> Iterator[list[Mapping[str, Any]]]:
        offset = None
        while True:
            request = edge.ScrollRequest(
                offset=offset, limit=limit, filter=which, with_payload=edge.PayloadSelector.Include(fields)
            )
            with _translated():
                points, offset = self._shard.scroll(request)
            yield [point.payload or {} for point in points]
            if offset is None:
                return

    def _point(self, item: EmbeddedChunk, *, live: bool) -> edge.Point:
        indices, values = self._encode_sparse(item.chunk.contextual_text)
        vectors: dict[str, edge.NamedVector] = {
            DENSE: checked_vector(item, model=self._model, dimension=self._dimension),
            SPARSE: edge.SparseVector(indices, values),
        }
        return edge.Point(point_id(item.chunk), vectors, ChunkPayload.of(item.chunk, live=live).stored())

    def _update(self, *operations: edge.UpdateOperation) -> None:
        for operation in operations:
            with _translated():
                self._shard.update(operation)

    def _flush(self) -> None:
        with _translated():
            self._shard.flush()
        self._unflushed = 0

    def _check_disk(self) -> None:
        # Edge maps its files into memory: on a full disk the write ends the process (SIGBUS) and raises nothing.
        free = shutil.disk_usage(self._folder).free
        if free < self._reserved_bytes:
            raise UnavailableError(
                f"the vector store's disk has {free >> 20} MiB left, and {self._reserved_bytes >> 20} MiB are kept free"
            )


def _config(dimension: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=2**40),  # KB: never
    )


def _claim(folder: Path, *, model: str, dimension: int) -> None:
    claim = folder / "embedding.json"
    wanted = {"model": model, "dimension": dimension}
    if not claim.exists():
        draft = claim.with_suffix(".new")
        draft.write_text(json.dumps(wanted))
        draft.replace(claim)
    found = json.loads(claim.read_text())
    if found != wanted:
        raise ValueError(
            f"{folder} holds vectors of {found['model']} ({found['dimension']} dimensions), but {model} ({dimension}) "
            "is configured; configure that model again, or choose another folder and reindex"
        )


def _create(shard_folder: Path, dimension: int) -> None:
    """Create the shard so that it is there whole or not at all."""
    draft = shard_folder.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    shard = edge.EdgeShard.create(str(draft), _config(dimension))
    _index(shard)
    shard.close()
    draft.replace(shard_folder)


def _index(shard: edge.EdgeShard) -> None:
    """Create the payload indexes; those that are there stay as they are."""
    kinds = dict.fromkeys(KEYWORDS, edge.PayloadSchemaType.Keyword) | {ORDINALS: edge.PayloadSchemaType.Float}
    for name, kind in kinds.items():
        shard.update(edge.UpdateOperation.create_field_index(name, kind))


def _is(key: str, value: str) -> edge.FieldCondition:
    return edge.FieldCondition(key=key, match=edge.MatchValue(value))


_CHUNKS = edge.Filter(must=[edge.FieldCondition(key=KIND, match=edge.MatchAny([LIVE, STAGED]))])


def _chunks_of(
    document_id: str, only: edge.FieldCondition | None = None, *, but: edge.FieldCondition | None = None
) -> edge.Filter:
    return edge.Filter(must=[_is(DOCUMENT_ID, document_id), *([only] if only else [])], must_not=[but] if but else None)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PermanentError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise PermanentError(f"the vector store cannot take this: {error}") from error
    except Exception as error:
        if any(sign in str(error).lower() for sign in _WORLD):
            raise UnavailableError(f"the vector store fails: {error}") from error
        raise TransientError(f"the vector store fails: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TransientError(f"the vector store panicked: {error}") from error
