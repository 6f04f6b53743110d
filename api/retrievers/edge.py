"""Read side of Qdrant Edge. It shares the index stage's shard: one process owns it, and its calls never overlap."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import qdrant_edge as edge

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

_Condition = edge.FieldCondition | edge.IsEmptyCondition | edge.Filter
_PAYLOAD = edge.PayloadSelector.Exclude([TERMS, ORDINALS])


class EdgeRetriever:
    """Searches the vector store in this process."""

    def __init__(self, shard: edge.EdgeShard) -> None:
        self._shard = shard

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
        queries = {}
        if dense is not None:
            queries[DENSE] = edge.Query.Nearest(dense.tolist(), using=DENSE)
        if sparse is not None:
            queries[SPARSE] = edge.Query.Nearest(edge.SparseVector(*sparse), using=SPARSE)
        live, asked = _live(document_ids, filter_, tenant), max(limit, CANDIDATES)

        def found(wanted: Mapping[str, int]) -> dict[str, list[Candidate]]:
            return {name: self._ranking(queries[name], live, count) for name, count in wanted.items()}

        return hits_from_rankings(passing(found, queries, asked=asked, filter_=filter_), limit=limit, asked=asked)

    def chunks(
        self, ids: Sequence[str], *, filter_: Filter | None = None, tenant: str | None = None
    ) -> dict[str, ChunkPayload]:
        """Those of the chunks that are live, the tenant's, and pass the filter, in the order of their ids."""
        with _translated():
            points = self._shard.retrieve(list(ids), _PAYLOAD, False)
        return passing_chunks(((point.id, point.payload) for point in points), filter_, tenant)

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The chunks' vectors, normalised, float32[dimension]; without those that are not there any more."""
        with _translated():
            points = self._shard.retrieve(list(ids), False, [DENSE])
        vectors: dict[str, Any] = {str(point.id): point.vector for point in points}
        return {id_: np.asarray(named[DENSE], np.float32) for id_, named in vectors.items()}

    def count(self) -> int:
        """Number of live chunks."""
        with _translated():
            return self._shard.count(edge.CountRequest(exact=True, filter=_live()))

    def document(self, document_id: str) -> DocumentState | None:
        """The document's state, or None if the store never met it."""
        with _translated():
            points = self._shard.retrieve([head_id(document_id)], True, False)
        return document_state(points[0].payload) if points else None

    def _ranking(self, query: edge.Query, live: edge.Filter, limit: int) -> list[Candidate]:
        request = edge.QueryRequest(limit=limit, query=query, filter=live, with_payload=_PAYLOAD)
        with _translated():
            points = self._shard.query(request)
        return [candidate(point.id, point.score, point.payload) for point in points]


class _Dialect:
    """Conditions as Qdrant Edge has them."""

    def one_of(self, key: str, values: Sequence[str]) -> _Condition:
        return edge.FieldCondition(key=key, match=edge.MatchAny(list(values)))

    def between(self, key: str, least: float, most: float) -> _Condition:
        return edge.FieldCondition(key=key, range=edge.RangeFloat(gte=least, lte=most))

    def is_empty(self, key: str) -> _Condition:
        return edge.IsEmptyCondition(key)

    def all_of(self, conditions: Sequence[_Condition]) -> _Condition:
        return edge.Filter(must=list(conditions))

    def any_of(self, conditions: Sequence[_Condition]) -> _Condition:
        return edge.Filter(should=list(conditions))

    def none_of(self, conditions: Sequence[_Condition]) -> _Condition:
        return edge.Filter(must_not=list(conditions))


def _live(
    document_ids: Sequence[str] | None = None, filter_: Filter | None = None, tenant: str | None = None
) -> edge.Filter:
    conditions: list[_Condition] = [edge.FieldCondition(key=KIND, match=edge.MatchValue(LIVE))]
    if document_ids is not None:
        conditions.append(edge.FieldCondition(key=DOCUMENT_ID, match=edge.MatchAny(list(document_ids))))
    if tenant is not None:
        conditions.append(edge.FieldCondition(key=TENANT, match=edge.MatchValue(tenant)))
    narrow = narrowed(filter_, _Dialect()) if filter_ is not None else None
    return edge.Filter(must=[*conditions, *([narrow] if narrow is not None else [])])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UnavailableError(f"the vector store fails: {error}") from error
