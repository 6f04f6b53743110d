"""Read side of Qdrant Edge. It shares the index stage's shard: one process owns it, and its calls never overlap."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import qdrant_edge as edge

from api.retrievers.hits import CANDIDATES, Candidate, DocumentState, Hit, candidate, document_state, hits_from_rankings
from processors.errors import UnavailableError
from schemas.ids import head_id
from schemas.records import Vector
from schemas.storage import DENSE, DOCUMENT_ID, KIND, LIVE, SPARSE, SparseVector


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
    ) -> list[Hit]:
        """The best live chunks by either or both vectors, fused; only of ``document_ids`` when given."""
        queries = {}
        if dense is not None:
            queries[DENSE] = edge.Query.Nearest(dense.tolist(), using=DENSE)
        if sparse is not None:
            queries[SPARSE] = edge.Query.Nearest(edge.SparseVector(*sparse), using=SPARSE)
        live = _live(document_ids)
        rankings = {name: self._ranking(query, live, max(limit, CANDIDATES)) for name, query in queries.items()}
        return hits_from_rankings(rankings, limit=limit)

    def count(self) -> int:
        """Number of live chunks."""
        with _translated():
            return self._shard.count(edge.CountRequest(exact=True, filter=_live(None)))

    def document(self, document_id: str) -> DocumentState | None:
        """The document's state, or None if the store never met it."""
        with _translated():
            points = self._shard.retrieve([head_id(document_id)], True, False)
        return document_state(points[0].payload) if points else None

    def _ranking(self, query: edge.Query, live: edge.Filter, limit: int) -> list[Candidate]:
        request = edge.QueryRequest(limit=limit, query=query, filter=live, with_payload=True)
        with _translated():
            points = self._shard.query(request)
        return [candidate(point.id, point.score, point.payload) for point in points]


def _live(document_ids: Sequence[str] | None) -> edge.Filter:
    conditions = [edge.FieldCondition(key=KIND, match=edge.MatchValue(LIVE))]
    if document_ids is not None:
        conditions.append(edge.FieldCondition(key=DOCUMENT_ID, match=edge.MatchAny(list(document_ids))))
    return edge.Filter(must=[*conditions])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UnavailableError(f"the vector store fails: {error}") from error
