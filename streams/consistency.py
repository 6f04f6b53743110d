"""Both stores, page by page, against each other and against the status topic.

Every page of the graph's documents is looked up in the vector store; then those that only the vector store, or only the
status topic, knows. So no more than a page is in memory, whatever the stores' own order is. What differs is read
a second time: a document that was just being written differs otherwise by then, or not at all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from schemas.consistency import Difference, Summary
from schemas.status import DocumentStatus
from streams.differences import differences
from streams.sinks.graph_audit import Faults, GraphAudit
from streams.sinks.holdings import PAGE, Holding, Holdings

T = TypeVar("T")

_NOTHING = Holding()


class Statuses(Protocol):
    """What is known of documents, from memory; see ``streams.status.StatusView``."""

    def get(self, document_id: str) -> DocumentStatus | None:
        """What is known of a document."""

    def ids(self) -> Sequence[str]:
        """Every document of which something is known."""

    @property
    def is_full(self) -> bool:
        """Whether documents may have been forgotten."""

    def catch_up(self) -> None:
        """Wait until everything that is in the status topic now is known."""


@dataclass(frozen=True)
class Consistency:
    """The comparison. ``statuses`` and ``unread`` (records that any stage has left to read) are None without Kafka."""

    vectors: Holdings
    graph: GraphAudit
    statuses: Statuses | None = None
    unread: Callable[[], int] | None = None

    def check(self, *, limit: int) -> Iterator[Difference | Summary]:
        """Differences as they are found, at most ``limit``, and a summary after each page; the last one is done.

        Raises:
            PipelineError: A store fails.
            TimeoutError: The status topic cannot be read.
        """
        if self.statuses is not None:
            self.statuses.catch_up()
        total = Summary(status_read=self.statuses is not None)
        for page, counted in self._pages():
            found = page[: limit - total.differences - total.in_flight]
            yield from found
            waiting = sum(one.is_in_flight for one in found)
            counted |= {"differences": len(found) - waiting, "in_flight": waiting}
            total = total.model_copy(update={name: getattr(total, name) + more for name, more in counted.items()})
            if total.differences + total.in_flight >= limit:
                yield total.model_copy(update={"is_cut": True, "done": True})
                return
            yield total
        yield total.model_copy(update={"done": True})

    def sweep(self) -> int:
        """Remove from the graph what nothing in the documents topic leads to; the number of things removed."""
        return self.graph.sweep()

    def _pages(self) -> Iterator[tuple[list[Difference], dict[str, int]]]:
        for ids in self.graph.document_ids():
            yield self._compared(ids)
        for ids in self.vectors.document_ids():
            in_graph = self.graph.holdings(ids)
            yield self._compared([id_ for id_ in ids if id_ not in in_graph])
        for known in _paged(self.statuses.ids() if self.statuses is not None else ()):
            held = self.graph.holdings(known).keys() | self.vectors.holdings(known).keys()
            yield self._compared([id_ for id_ in known if id_ not in held])
        for read in self.graph.pages():
            yield self._faults(read)
        yield [], {"entities": self.graph.count_entities()}

    def _compared(self, ids: Sequence[str]) -> tuple[list[Difference], dict[str, int]]:
        if not ids:
            return [], {}
        holdings = self._holdings(ids)
        points = sum(len(of_vectors.chunks) for of_vectors, _ in holdings.values())
        return self._confirmed(ids, holdings), {"documents": len(ids), "points": points}

    def _confirmed(self, ids: Sequence[str], holdings: Mapping[str, tuple[Holding, Holding]]) -> list[Difference]:
        suspected = self._differences(holdings, is_busy=False)
        if not suspected:
            return []
        is_busy = self.unread is None or self.unread() > 0  # between the readings: what is in flight in both is unread
        again = {one.document_id for one in suspected if one.document_id is not None}
        confirmed = self._differences(self._holdings([id_ for id_ in ids if id_ in again]), is_busy=is_busy)
        seen = {_without_remedy(one) for one in suspected}
        return [one for one in confirmed if _without_remedy(one) in seen]

    def _holdings(self, ids: Sequence[str]) -> dict[str, tuple[Holding, Holding]]:
        of_vectors, of_graph = self.vectors.holdings(ids), self.graph.holdings(ids)
        return {id_: (of_vectors.get(id_, _NOTHING), of_graph.get(id_, _NOTHING)) for id_ in ids}

    def _differences(self, holdings: Mapping[str, tuple[Holding, Holding]], *, is_busy: bool) -> list[Difference]:
        statuses = self.statuses
        return [
            difference
            for id_, (of_vectors, of_graph) in holdings.items()
            for difference in differences(
                id_,
                of_vectors,
                of_graph,
                status=statuses.get(id_) if statuses else None,
                is_status_known=statuses is not None and not statuses.is_full,
                is_busy=is_busy,
            )
        ]

    def _faults(self, read: Callable[[], Faults]) -> tuple[list[Difference], dict[str, int]]:
        page = read()
        found = [fault.difference for fault in page.found]
        if found:
            again = {fault.difference for fault in read().found}
            found = [difference for difference in found if difference in again]
        return found, {"chunks": page.chunks, "mentions": page.mentions, "relations": page.relations}


def _without_remedy(difference: Difference) -> Difference:
    return difference.model_copy(update={"remedy": "republish"})


def _paged(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[first : first + PAGE] for first in range(0, len(ids), PAGE))
