"""A store whose writes are seen in the trace of each document that they are of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Generic

from schemas.records import Extraction, Revision
from streams.sinks.index import Head, Item, Store
from streams.sinks.links import GraphStore
from streams.tracing import store_spans


class TracedStore(Generic[Item]):
    """Implements ``streams.sinks.index.Store`` by another one; ``system`` is the conventions' name of the database."""

    def __init__(self, store: Store[Item], system: str) -> None:
        self._store: Store[Item] = store
        self._system = system
        self.heads = store.heads
        self.held = store.held
        self.close = store.close

    def write(self, heads: Mapping[str, Head], items: Sequence[Item], *, live: bool) -> None:
        """Upsert heads and chunks."""
        chunks = Counter(dict.fromkeys(heads, 0))
        chunks.update(item.chunk.document_id for item in items)
        with store_spans(self._system, "upsert", chunks):
            self._store.write(heads, items, live=live)

    def make_live(self, document_id: str, revision: Revision) -> None:
        """Let that revision answer."""
        with store_spans(self._system, "make-live", {document_id: 0}):
            self._store.make_live(document_id, revision)

    def erase(self, document_id: str) -> None:
        """Remove every chunk of the document."""
        with store_spans(self._system, "erase", {document_id: 0}):
            self._store.erase(document_id)


class TracedGraphStore(TracedStore[Extraction]):
    """Implements ``streams.sinks.links.GraphStore`` likewise; decisions are of no document, and not traced."""

    def __init__(self, store: GraphStore, system: str) -> None:
        super().__init__(store, system)
        self.decide = store.decide
