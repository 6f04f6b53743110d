"""How both stores are written: one algorithm, whatever the store.

A document's *head* remembers the newest revision seen. Older revisions are dropped on arrival, so neither a late
retry nor a replay brings anything back. The chunks of a new revision lie in the store unseen until all of them are
there; then they go live and every other revision of the document is removed. Each step can be repeated, so a
crash between any two of them is mended by the records being delivered again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from processors.errors import TransientError
from schemas.records import Chunk, EmbeddedChunk, Extraction, Mark, Revision, StageName, State, StatusRecord
from streams.reports import status_of

Item = TypeVar("Item", EmbeddedChunk, Extraction)
Item_contra = TypeVar("Item_contra", EmbeddedChunk, Extraction, contravariant=True)


@dataclass(frozen=True)
class Head:
    """What a store remembers of a document.

    ``live`` is the revision whose chunks answer queries; ``complete`` says that these are the content of
    ``latest`` (a document published again unchanged has a newer ``latest`` than ``live``).
    """

    latest: Revision
    live: Revision | None = None
    complete: bool = False
    deleted: bool = False
    chunk_count: int = 0
    content_hash: str | None = None


class Store(Protocol[Item_contra]):
    """The write side of a store. Every method may be repeated with the same arguments to the same effect.

    Raises (all methods):
        UnavailableError: The store cannot be reached or refuses writes at present.
        PermanentError: The store can never take this.
    """

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        """The heads of those documents that have one."""

    def write(self, heads: Mapping[str, Head], items: Sequence[Item_contra], *, live: bool) -> None:
        """Upsert heads and chunks, heads not after chunks; ``live`` says whether the chunks answer queries."""

    def held(self, document_id: str, revision: Revision) -> int:
        """Number of chunks held of that revision."""

    def make_live(self, document_id: str, revision: Revision) -> None:
        """Let that revision answer, then remove every other revision of the document."""

    def erase(self, document_id: str) -> None:
        """Remove every chunk of the document and what only it supported; the head stays."""

    def close(self) -> None:
        """Flush and release."""


@dataclass
class _Plan(Generic[Item]):
    """What a batch asks of the store, per document."""

    before: Mapping[str, Head]
    heads: dict[str, Head] = field(default_factory=dict)
    items: dict[str, dict[int, Item]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)

    def head(self, document_id: str) -> Head | None:
        return self.heads.get(document_id) or self.before.get(document_id)

    def add(self, record: Item | Mark) -> None:
        document = record if isinstance(record, Mark) else record.chunk
        head = self.head(document.document_id)
        if head is not None and document.revision < head.latest:
            return  # stale
        if isinstance(record, Mark):
            self._add_mark(record, head)
        elif head is None or head.latest < document.revision:
            self.heads[document.document_id] = _head_of(record.chunk, head)
            self.items[document.document_id] = {record.chunk.chunk_index: record}
        elif not head.complete and not head.deleted:
            self.items.setdefault(document.document_id, {})[record.chunk.chunk_index] = record

    def _add_mark(self, mark: Mark, head: Head | None) -> None:
        if mark.operation == "delete":
            self.heads[mark.document_id] = Head(latest=mark.revision, deleted=True)
            self.items.pop(mark.document_id, None)
            self.erased.add(mark.document_id)
        elif head is not None and head.complete and head.content_hash == mark.content_hash:
            self.heads[mark.document_id] = replace(head, latest=mark.revision)
        else:
            raise TransientError(
                f"document {mark.document_id!r} was published unchanged as version {mark.version}, but this store "
                "does not hold that content; replaying the document's record will index it"
            )


def _head_of(chunk: Chunk, before: Head | None) -> Head:
    return Head(
        latest=chunk.revision,
        live=before.live if before else None,
        chunk_count=chunk.chunk_count,
        content_hash=chunk.content_hash,
    )


def index(store: Store[Item], stage: StageName, batch: Sequence[Item | Mark]) -> list[list[StatusRecord]]:
    """Write a batch in order; for each record the statuses that follow from it.

    A document's status goes with the last of its records in the batch.
    """
    last = {_document_id(record): position for position, record in enumerate(batch)}
    plan: _Plan[Item] = _Plan(store.heads(last))
    for record in batch:
        plan.add(record)
    _write(store, plan)
    statuses: list[list[StatusRecord]] = [[] for _ in batch]
    for document_id, position in last.items():
        head = plan.head(document_id)
        if head is not None and (head.complete or head.deleted):
            statuses[position].append(_status(stage, document_id, head))
    return statuses


def _write(store: Store[Item], plan: _Plan[Item]) -> None:
    new_and_whole = {
        document_id
        for document_id, items in plan.items.items()
        if document_id not in plan.before and len(items) == plan.heads[document_id].chunk_count
    }
    others = plan.heads.keys() - new_and_whole
    for document_id in sorted(plan.erased):  # before the writes: the batch may publish the document anew
        store.erase(document_id)
    _write_some(store, plan, new_and_whole, live=True)
    _write_some(store, plan, others | (plan.items.keys() - new_and_whole), live=False)
    # Only now may a head say complete: had the write stopped halfway, the chunks delivered again would be ignored.
    completed = {document_id: _completed(plan.heads[document_id]) for document_id in new_and_whole}
    for document_id, items in plan.items.items():
        head = plan.head(document_id)
        if document_id in new_and_whole or head is None:
            continue
        if len(items) == head.chunk_count or store.held(document_id, head.latest) == head.chunk_count:
            store.make_live(document_id, head.latest)
            completed[document_id] = _completed(head)
    if completed:
        store.write(completed, [], live=True)
        plan.heads |= completed


def _write_some(store: Store[Item], plan: _Plan[Item], documents: set[str], *, live: bool) -> None:
    heads = {document_id: plan.heads[document_id] for document_id in sorted(documents & plan.heads.keys())}
    items = [item for document_id in sorted(documents) for item in plan.items.get(document_id, {}).values()]
    if heads or items:
        store.write(heads, items, live=live)


def _completed(head: Head) -> Head:
    return replace(head, live=head.latest, complete=True)


def _document_id(record: Item | Mark) -> str:
    return record.document_id if isinstance(record, Mark) else record.chunk.document_id


def _status(stage: StageName, document_id: str, head: Head) -> StatusRecord:
    state: State = "deleted" if head.deleted else "indexed"
    count, digest = head.chunk_count, head.content_hash
    return status_of(document_id, head.latest, stage, state, chunk_count=count, content_hash=digest)
