"""One document, as both stores hold it and the status topic tells it: what is not as it should be."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from schemas.consistency import Difference, Kind, Remedy
from schemas.status import SETTLED, DocumentStatus
from streams.sinks.holdings import HeldChunk, Holding
from streams.sinks.index import Head

_NAMED = 5  # indices that are listed before "and more"

Says = Callable[[Holding], str | None]


def differences(
    document_id: str,
    vectors: Holding,
    graph: Holding,
    *,
    status: DocumentStatus | None,
    is_status_known: bool,
    is_busy: bool,
) -> list[Difference]:
    """What differs. ``is_status_known``: nothing is forgotten, so no status means that there should be none.

    ``is_busy``: records are left to read somewhere, so that a document which is not settled may be in flight.
    """
    found = list(_of_stores(vectors, graph))
    if not found and (status is not None or is_status_known):
        found = list(_of_status(vectors, graph, status))
    remedy = _remedy(vectors, graph, status, is_busy=is_busy)
    versions = [holding.head.latest.version for holding in (vectors, graph) if holding.head]
    versions += [int(chunk.revision.partition(".")[0]) for holding in (vectors, graph) for chunk in holding.chunks]
    return [
        Difference(
            kind=kind,
            document_id=document_id,
            vectors=of_vectors,
            graph=of_graph,
            status=status.state if status else None,
            remedy=remedy,
            held_version=max(versions, default=0),
        )
        for kind, of_vectors, of_graph in found
    ]


def _of_stores(vectors: Holding, graph: Holding) -> Iterator[tuple[Kind, str | None, str | None]]:
    of_vectors, of_graph = vectors.head, graph.head
    if of_vectors is None or of_graph is None:
        if of_vectors or of_graph or vectors.chunks or graph.chunks:
            yield "head-missing", _said(vectors), _said(graph)
    elif of_vectors != of_graph:
        yield "head-differs", _said(vectors), _said(graph)
    elif not (of_vectors.complete or of_vectors.deleted):
        yield "incomplete", _said(vectors), _said(graph)
    per_store: tuple[tuple[Kind, Says], ...] = (
        ("chunks-missing", _missing),
        ("chunks-left", _left),
        ("staged-left", _staged),
    )
    for kind, says in per_store:
        said = says(vectors), says(graph)
        if any(said):
            yield kind, *said
    if indices := _other_texts(vectors, graph):
        yield "text-differs", f"chunk {_listed(indices)}", f"chunk {_listed(indices)}: another text"


def _of_status(
    vectors: Holding, graph: Holding, status: DocumentStatus | None
) -> Iterator[tuple[Kind, str | None, str | None]]:
    head = vectors.head
    if status is not None and status.state == "dead-lettered":
        return  # that is known, and what was there before goes on answering
    told = (status.state, status.revision) if status else None
    should = None if head is None else ("deleted" if head.deleted else "indexed", head.latest)
    if told != should:
        yield "status-differs", _said(vectors), _said(graph)


def _remedy(vectors: Holding, graph: Holding, status: DocumentStatus | None, *, is_busy: bool) -> Remedy:
    if is_busy and not _is_settled(vectors.head, graph.head, status):
        return "wait"
    if status is not None and status.state == "dead-lettered":
        return "replay"
    return "erase-and-republish" if vectors.chunks and vectors.head is None else "republish"


def _is_settled(of_vectors: Head | None, of_graph: Head | None, status: DocumentStatus | None) -> bool:
    """Whether nothing more is to happen to the document, by what is known of it."""
    if status is not None:
        latest = {head.latest for head in (of_vectors, of_graph) if head}
        return status.state in SETTLED and latest <= {status.revision}
    return of_vectors is not None and of_vectors == of_graph and (of_vectors.complete or of_vectors.deleted)


def _said(holding: Holding) -> str:
    head = holding.head
    if head is None:
        return f"no head, {len(holding.chunks)} chunks" if holding.chunks else "unknown"
    if head.deleted:
        return f"{head.latest} deleted"
    state = f"complete, {head.chunk_count} chunks" if head.complete else "incomplete"
    return f"{head.latest} {state}" + (f", {head.live} live" if head.live not in (None, head.latest) else "")


def _expected(holding: Holding) -> Counter[tuple[str, int]] | None:
    """Revision and index of the chunks that have to answer; None where the head does not say how many."""
    head = holding.head
    if head is None or not (head.complete or head.deleted):
        return None
    return Counter((str(head.live), index) for index in range(head.chunk_count if head.complete else 0))


def _missing(holding: Holding) -> str | None:
    expected = _expected(holding)
    if expected is None:
        return None
    gone = expected - _answering(holding)
    return f"{len(gone)} of {len(expected)}: {_listed(sorted(index for _, index in gone))}" if gone else None


def _left(holding: Holding) -> str | None:
    expected = _expected(holding)
    if expected is None:
        return None
    extra = _answering(holding) - expected
    revisions = ", ".join(sorted({revision for revision, _ in extra}))
    return f"{extra.total()} of revision {revisions}" if extra else None


def _staged(holding: Holding) -> str | None:
    waiting = [chunk for chunk in holding.chunks if not chunk.is_live]
    return f"{len(waiting)} chunks" if waiting and _expected(holding) is not None else None


def _other_texts(vectors: Holding, graph: Holding) -> list[int]:
    texts, others = ({_place(chunk): chunk.text_digest for chunk in of.chunks} for of in (vectors, graph))
    return sorted(
        index for revision, index in texts.keys() & others if texts[revision, index] != others[revision, index]
    )


def _answering(holding: Holding) -> Counter[tuple[str, int]]:
    return Counter(_place(chunk) for chunk in holding.chunks if chunk.is_live)


def _place(chunk: HeldChunk) -> tuple[str, int]:
    return chunk.revision, chunk.chunk_index


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:_NAMED])) + (" and more" if len(indices) > _NAMED else "")
