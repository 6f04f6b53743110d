"""Read side of a Qdrant server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException

from api.retrievers.hits import CANDIDATES, DocumentState, Hit, candidate, document_state, hits_from_rankings
from processors.errors import UnavailableError
from schemas.ids import head_id
from schemas.records import Vector
from schemas.storage import DENSE, DOCUMENT_ID, KIND, LIVE, SPARSE, SparseVector


class QdrantRetriever:
    """Searches a collection of a Qdrant server."""

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self._client = client
        self._collection = collection

    def search(
        self,
        dense: Vector | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        document_ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The best live chunks by either or both vectors, fused; only of ``document_ids`` when given."""
        queries: dict[str, list[float] | models.SparseVector] = {}
        if dense is not None:
            queries[DENSE] = dense.tolist()
        if sparse is not None:
            queries[SPARSE] = models.SparseVector(indices=sparse[0], values=sparse[1])
        live, limit_each = _live(document_ids), max(limit, CANDIDATES)
        requests = [
            models.QueryRequest(query=query, using=name, filter=live, limit=limit_each, with_payload=True)
            for name, query in queries.items()
        ]
        with _translated():
            responses = self._client.query_batch_points(self._collection, requests)
        rankings = {
            name: [candidate(point.id, point.score, point.payload) for point in response.points]
            for name, response in zip(queries, responses, strict=True)
        }
        return hits_from_rankings(rankings, limit=limit)

    def count(self) -> int:
        """Number of live chunks."""
        with _translated():
            return self._client.count(self._collection, count_filter=_live(None), exact=True).count

    def document(self, document_id: str) -> DocumentState | None:
        """The document's state, or None if the store never met it."""
        with _translated():
            points = self._client.retrieve(self._collection, [head_id(document_id)], with_payload=True)
        return document_state(points[0].payload) if points else None


def _live(document_ids: Sequence[str] | None) -> models.Filter:
    conditions = [models.FieldCondition(key=KIND, match=models.MatchValue(value=LIVE))]
    if document_ids is not None:
        conditions.append(models.FieldCondition(key=DOCUMENT_ID, match=models.MatchAny(any=list(document_ids))))
    return models.Filter(must=[*conditions])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise UnavailableError(f"Qdrant is busy: {error}", retry_after=float(error.retry_after_s)) from error
    except ApiException as error:
        raise UnavailableError(f"Qdrant does not answer: {error}") from error
