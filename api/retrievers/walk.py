"""From a question, and from the passages that searches found for it, through the graph to others, in bounded time."""

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

from api.retrievers.graph import Graph
from api.retrievers.hits import Hit
from processors.bridges import MAX_PLACES, PARENTS, Step, activations, most_promising, possible_entities, steps
from processors.errors import UnavailableError

_MAX_ENTITIES = 200
_MAX_REACHED = 100
_THREADS = 16  # as many as search (api/search.py), so that a walk waits for none unless the graph hangs


class Walk:
    """Walks the graph in threads of its own: whoever asks waits ``timeout`` seconds and no longer.

    A graph that hangs keeps its threads; once it has them all, a walk is refused at once.
    """

    def __init__(self, graph: Graph, *, timeout: float) -> None:
        self._graph = graph
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="graph-walk")
        self._free = BoundedSemaphore(_THREADS)

    def steps(self, question: str, hits: Sequence[Hit], *, tenant: str | None = None) -> list[Step]:
        """The most promising steps from the question's names and from the best hits, to the tenant's chunks.

        Raises:
            PipelineError: The graph did not answer in time, or at all.
        """
        if not self._free.acquire(blocking=False):
            raise UnavailableError("the graph has not answered earlier searches yet")
        deadline = time.monotonic() + self._timeout
        walking = self._threads.submit(self._walk, question, hits[:PARENTS], tenant, deadline)
        walking.add_done_callback(lambda _: self._free.release())
        try:
            return walking.result(self._timeout)
        except TimeoutError:
            raise _late(self._timeout) from None

    def _walk(self, question: str, parents: Sequence[Hit], tenant: str | None, deadline: float) -> list[Step]:
        names, origins = self._origins(question, parents)
        found: list[Step] = []
        for entity, places in self._graph.places(list(names)[:_MAX_ENTITIES], tenant=tenant):
            if time.monotonic() > deadline:
                raise _late(self._timeout)
            if len(places) <= MAX_PLACES:
                found += steps(names[entity], places, origins=origins[entity])
        return most_promising(found, limit=_MAX_REACHED)

    def _origins(
        self, question: str, parents: Sequence[Hit]
    ) -> tuple[dict[str, str], dict[str, dict[str | None, float]]]:
        """The names of the entities to step along, by id, and where each was met, with what that counts."""
        possible = possible_entities(question)
        names = {id_: possible[id_] for id_ in self._graph.existing(list(possible))}
        origins: defaultdict[str, dict[str | None, float]] = defaultdict(dict)
        for id_ in names:
            origins[id_][None] = 1.0
        for parent, activation in zip(parents, activations([hit.score for hit in parents]), strict=True):
            for id_, name in self._graph.names_in(parent.chunk_id).items():
                names.setdefault(id_, name)
                origins[id_][parent.chunk_id] = activation
        return names, origins


def _late(timeout: float) -> UnavailableError:
    return UnavailableError(f"the graph did not answer in {timeout:g} s (AEGIS_GRAPH__SEARCH_TIMEOUT)")
