"""Qdrant server: the vector store of many workers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from processors.errors import PermanentError, PipelineError, UnavailableError
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
    collection_name,
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

_POINTS_PER_SCROLL = 256
_PASSING = (408, 429)


def open_collection(client: QdrantClient, *, model: str, dimension: int, generation: str = "") -> str:
    """The name of the model's collection, which is created when there is none.

    Raises:
        ValueError: The collection of that name holds vectors of another model or dimension.
        UnavailableError: The server cannot be reached.
    """
    name = collection_name(model, dimension) + (f"-{generation}" if generation else "")
    with _translated():
        if not client.collection_exists(name):
            _create(client, name, model=model, dimension=dimension)
        for field in KEYWORDS:
            client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)
        client.create_payload_index(name, ORDINALS, models.PayloadSchemaType.FLOAT)
        config = client.get_collection(name).config
    vectors = config.params.vectors
    held_dimension = vectors[DENSE].size if isinstance(vectors, dict) and DENSE in vectors else None
    held_model = (config.metadata or {}).get("model", model)
    if (held_model, held_dimension) != (model, dimension):
        raise ValueError(
            f"collection {name} holds vectors of {held_model} ({held_dimension} dimensions), but {model} ({dimension}) "
            "is configured; configure that model again, or remove the collection and reindex"
        )
    return name


class QdrantVectorStore:
    """Write side of a Qdrant server's collection."""

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        encode_sparse: Callable[[str], SparseVector],
        *,
        model: str,
        dimension: int,
    ) -> None:
        self._client = client
        self._collection = collection
        self._encode_sparse = encode_sparse
        self._model = model
        self._dimension = dimension

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        """The heads of those documents that have one."""
        ids = [head_id(document_id) for document_id in document_ids]
        with _translated():
            points = self._client.retrieve(self._collection, ids, with_payload=True, with_vectors=False)
        return dict(head_from_payload(point.payload) for point in points)

    def write(self, heads: Mapping[str, Head], items: Sequence[EmbeddedChunk], *, live: bool) -> None:
        """Upsert heads and chunks in one request; on return the server has applied and logged it."""
        points = [
            models.PointStruct(id=head_id(document_id), vector={}, payload=head_payload(document_id, head))
            for document_id, head in heads.items()
        ]
        points += [self._point(item, live=live) for item in items]
        if points:  # the server refuses a request without any
            with _translated():
                self._client.upsert(self._collection, points, wait=True)

    def held(self, document_id: str, revision: Revision) -> int:
        """Number of chunks held of that revision."""
        chunks = _chunks_of(document_id, _is(REVISION, str(revision)))
        with _translated():
            return self._client.count(self._collection, count_filter=chunks, exact=True).count

    def make_live(self, document_id: str, revision: Revision) -> None:
        """Let that revision answer, then remove every other revision of the document."""
        newest = _is(REVISION, str(revision))
        with _translated():
            self._client.set_payload(self._collection, {KIND: LIVE}, points=_chunks_of(document_id, newest), wait=True)
            self._client.delete(self._collection, _chunks_of(document_id, but=newest), wait=True)

    def erase(self, document_id: str) -> None:
        """Remove every chunk of the document; the head stays."""
        with _translated():
            self._client.delete(self._collection, _chunks_of(document_id), wait=True)

    def dump(self) -> Iterator[StoredChunk]:
        """Every live chunk, in the order of the points' ids, a few hundred in memory at a time."""
        offset: Any = None
        while True:
            with _translated():
                points, offset = self._client.scroll(
                    self._collection,
                    scroll_filter=models.Filter(must=[_is(KIND, LIVE)]),
                    limit=_POINTS_PER_SCROLL,
                    offset=offset,
                    with_payload=True,
                    with_vectors=[DENSE],
                )
            yield from (stored_chunk(point.payload, point.vector) for point in points)
            if offset is None:
                return

    def staged(self) -> int:
        """Number of chunks that do not answer queries yet."""
        waiting = models.Filter(must=[_is(KIND, STAGED)])
        with _translated():
            return self._client.count(self._collection, count_filter=waiting, exact=True).count

    def document_ids(self) -> Iterator[list[str]]:
        """Pages of the documents that have a head here, then of those that have chunks and none."""
        heads = models.Filter(must=[_is(KIND, HEAD)])
        yield from of_documents(self._payloads(heads, ["head_of"], limit=PAGE))
        yield from without_head(self._payloads(_CHUNKS, [DOCUMENT_ID], limit=PAGE), self.heads)

    def holdings(self, document_ids: Sequence[str]) -> dict[str, Holding]:
        """What is held of those documents."""
        of = models.FieldCondition(key=DOCUMENT_ID, match=models.MatchAny(any=list(document_ids)))
        pages = self._payloads(models.Filter(must=[of]), list(HELD), limit=_POINTS_PER_SCROLL)
        return held_by_document(self.heads(document_ids), (held_chunk(payload) for page in pages for payload in page))

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    def _payloads(self, which: models.Filter, fields: list[str], *, limit: int) -> Iterator[list[Mapping[str, Any]]]:
        offset: Any = None
        while True:
            with _translated():
                points, offset = self._client.scroll(
                    self._collection, scroll_filter=which, limit=limit, offset=offset, with_payload=fields
                )
            yield [point.payload or {} for point in points]
            if offset is None:
                return

    def _point(self, item: EmbeddedChunk, *, live: bool) -> models.PointStruct:
        indices, values = self._encode_sparse(item.chunk.contextual_text)
        return models.PointStruct(
            id=point_id(item.chunk),
            vector={
                DENSE: checked_vector(item, model=self._model, dimension=self._dimension),
                SPARSE: models.SparseVector(indices=indices, values=values),
            },
            payload=ChunkPayload.of(item.chunk, live=live).stored(),
        )


def _create(client: QdrantClient, name: str, *, model: str, dimension: int) -> None:
    try:
        client.create_collection(
            name,
            vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
            sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata={"model": model, "dimension": dimension},
        )
    except UnexpectedResponse as error:
        if error.status_code != 409:  # another worker was faster
            raise


def _is(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


_CHUNKS = models.Filter(must=[models.FieldCondition(key=KIND, match=models.MatchAny(any=[LIVE, STAGED]))])


def _chunks_of(
    document_id: str, only: models.FieldCondition | None = None, *, but: models.FieldCondition | None = None
) -> models.Filter:
    return models.Filter(
        must=[_is(DOCUMENT_ID, document_id), *([only] if only else [])], must_not=[but] if but else None
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise UnavailableError(f"Qdrant is busy: {error}", retry_after=float(error.retry_after_s)) from error
    except UnexpectedResponse as error:
        raise _classified(error) from error
    except ResponseHandlingException as error:
        raise UnavailableError(f"Qdrant does not answer: {error.source}") from error


def _classified(error: UnexpectedResponse) -> PipelineError:
    status = error.status_code or 500
    if 400 <= status < 500 and status not in _PASSING:
        return PermanentError(f"Qdrant refuses this: {error}")
    return UnavailableError(f"Qdrant answers {status}: {error}")
