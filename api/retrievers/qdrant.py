"""Read side of a Qdrant server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException

from api.retrievers.hits import (
    CANDIDATES,
    Candidate,
    DocumentState,
    Hit,
    candidate,
    document_state,
    hits_from_rankings,
    passing,
    passing_chunks,
)
from api.retrievers.narrowing import narrowed
from processors.errors import UnavailableError
from processors.filters import Filter
from schemas.fields import ORDINALS, TERMS
from schemas.ids import head_id
from schemas.records import Vector
from schemas.storage import DENSE, DOCUMENT_ID, KIND, LIVE, SPARSE, TENANT, ChunkPayload, SparseVector

_PAYLOAD = models.PayloadSelectorExclude(exclude=[TERMS, ORDINALS])


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
        filter_: Filter | None = None,
        tenant: str | None = None,
    ) -> list[Hit]:
        """The best live chunks by either or both vectors, fused; see ``api.retrievers.hits.Retriever``."""
        queries: dict[str, list[float] | models.SparseVector] = {}
        if dense is not None:
            queries[DENSE] = dense.tolist()
        if sparse is not None:
            queries[SPARSE] = models.SparseVector(indices=sparse[0], values=sparse[1])
        live, asked = _live(document_ids, filter_, tenant), max(limit, CANDIDATES)

        def found(wanted: Mapping[str, int]) -> dict[str, list[Candidate]]:
            requests = [
                models.QueryRequest(query=queries[name], using=name, filter=live, limit=count, with_payload=_PAYLOAD)
                for name, count in wanted.items()
            ]
            with _translated():
                responses = self._client.query_batch_points(self._collection, requests)
            return {
                name: [candidate(point.id, point.score, point.payload) for point in response.points]
                for name, response in zip(wanted, responses, strict=True)
            }

        return hits_from_rankings(passing(found, queries, asked=asked, filter_=filter_), limit=limit, asked=asked)

    def chunks(
        self, ids: Sequence[str], *, filter_: Filter | None = None, tenant: str | None = None
    ) -> dict[str, ChunkPayload]:
        """Those of the chunks that are live, the tenant's, and pass the filter, in the order of their ids."""
        with _translated():
            points = self._client.retrieve(self._collection, list(ids), with_payload=_PAYLOAD)
        return passing_chunks(((point.id, point.payload) for point in points), filter_, tenant)

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The chunks' vectors, normalised, float32[dimension]; without those that are not there any more."""
        with _translated():
            points = self._client.retrieve(self._collection, list(ids), with_payload=False, with_vectors=[DENSE])
        vectors: dict[str, Any] = {str(point.id): point.vector for point in points}
        return {id_: np.asarray(named[DENSE], np.float32) for id_, named in vectors.items()}

    def count(self) -> int:
        """Number of live chunks."""
        with _translated():
            return self._client.count(self._collection, count_filter=_live(), exact=True).count

    def document(self, document_id: str) -> DocumentState | None:
        """The document's state, or None if the store never met it."""
        with _translated():
            points = self._client.retrieve(self._collection, [head_id(document_id)], with_payload=True)
        return document_state(points[0].payload) if points else None


class _Dialect:
    """Conditions as a Qdrant server has them."""

    def one_of(self, key: str, values: Sequence[str]) -> models.Condition:
        return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))

    def between(self, key: str, least: float, most: float) -> models.Condition:
        return models.FieldCondition(key=key, range=models.Range(gte=least, lte=most))

    def is_empty(self, key: str) -> models.Condition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))

    def all_of(self, conditions: Sequence[models.Condition]) -> models.Condition:
        return models.Filter(must=list(conditions))

    def any_of(self, conditions: Sequence[models.Condition]) -> models.Condition:
        return models.Filter(should=list(conditions))

    def none_of(self, conditions: Sequence[models.Condition]) -> models.Condition:
        return models.Filter(must_not=list(conditions))


def _live(
    document_ids: Sequence[str] | None = None, filter_: Filter | None = None, tenant: str | None = None
) -> models.Filter:
    conditions: list[models.Condition] = [models.FieldCondition(key=KIND, match=models.MatchValue(value=LIVE))]
    if document_ids is not None:
        conditions.append(models.FieldCondition(key=DOCUMENT_ID, match=models.MatchAny(any=list(document_ids))))
    if tenant is not None:
        conditions.append(models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant)))
    narrow = narrowed(filter_, _Dialect()) if filter_ is not None else None
    return models.Filter(must=[*conditions, *([narrow] if narrow is not None else [])])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise UnavailableError(f"Qdrant is busy: {error}", retry_after=float(error.retry_after_s)) from error
    except ApiException as error:
        raise UnavailableError(f"Qdrant does not answer: {error}") from error
