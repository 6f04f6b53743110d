"""The smallest store that keeps the contract of ``streams.sinks.index.Store``; stores that die between two steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic

from schemas.records import EmbeddedChunk, Revision
from streams.sinks.index import Head, Item, Store


class Crash(Exception):
    """The process died here."""


class MemoryStore(Generic[Item]):
    """Chunks and heads in two dicts. ``step`` is called before every single change, and may raise ``Crash``."""

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.known: dict[str, Head] = {}
        self.chunks: dict[tuple[str, Revision, int], tuple[Item, bool]] = {}
        self.step = step

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        return {document_id: self.known[document_id] for document_id in document_ids if document_id in self.known}

    def write(self, heads: Mapping[str, Head], items: Sequence[Item], *, live: bool) -> None:
        for document_id, head in heads.items():
            self.step()
            self.known[document_id] = head
        for item in items:
            self.step()
            self.chunks[item.chunk.document_id, item.chunk.revision, item.chunk.chunk_index] = (item, live)

    def held(self, document_id: str, revision: Revision) -> int:
        return sum(key[:2] == (document_id, revision) for key in self.chunks)

    def make_live(self, document_id: str, revision: Revision) -> None:
        for key in [key for key in self.chunks if key[:2] == (document_id, revision)]:
            self.step()
            self.chunks[key] = (self.chunks[key][0], True)
        self._remove([key for key in self.chunks if key[0] == document_id and key[1] != revision])

    def erase(self, document_id: str) -> None:
        self._remove([key for key in self.chunks if key[0] == document_id])

    def close(self) -> None:
        pass

    def live(self) -> dict[tuple[str, int], str]:
        """Text of the chunks that answer queries, by document and index; fails where two revisions do."""
        found = [(document_id, index, item) for (document_id, _, index), (item, live) in self.chunks.items() if live]
        assert len({place[:2] for place in found}) == len(found)
        return {(document_id, index): item.chunk.text for document_id, index, item in found}

    def _remove(self, keys: Iterable[tuple[str, Revision, int]]) -> None:
        for key in keys:
            self.step()
            del self.chunks[key]


class BrittleStore:
    """Any store, with its writes taken apart; ``step`` is called before and after every change."""

    def __init__(self, store: Store[EmbeddedChunk], step: Callable[[], None]) -> None:
        self.store = store
        self.step = step

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        return self.store.heads(document_ids)

    def write(self, heads: Mapping[str, Head], items: Sequence[EmbeddedChunk], *, live: bool) -> None:
        self.step()
        if heads:
            self.store.write(heads, [], live=live)
        for item in items:
            self.step()
            self.store.write({}, [item], live=live)
        self.step()

    def held(self, document_id: str, revision: Revision) -> int:
        return self.store.held(document_id, revision)

    def make_live(self, document_id: str, revision: Revision) -> None:
        self.step()
        self.store.make_live(document_id, revision)
        self.step()

    def erase(self, document_id: str) -> None:
        self.step()
        self.store.erase(document_id)
        self.step()

    def close(self) -> None:
        self.store.close()
