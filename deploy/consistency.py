"""Where the stores are compared: in the process that has them open."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from api.ports import Consistency as Checker
from deploy.running import NotRunningError, Running, find
from deploy.stores import GraphStore, VectorStore, open_graph_store, open_vectors
from schemas.consistency import Difference, Summary
from schemas.settings import Settings
from streams.consistency import Consistency
from streams.lag import LagMeter, unread
from streams.sinks.graph_audit import GraphAudit
from streams.status import StatusView

_SECONDS_PER_PAGE = 300.0


def consistency_of(
    vectors: VectorStore, graph: GraphStore, view: StatusView | None, bootstrap_servers: str, *, generation: str
) -> Consistency:
    """The comparison of opened stores; without a view, of nothing but the stores."""
    audit = GraphAudit(graph.transact)
    if view is None:
        return Consistency(vectors, audit)
    meter = LagMeter(bootstrap_servers, generation=generation)
    return Consistency(vectors, audit, view, lambda: unread(meter.measure(retries=True)))


class RemoteConsistency:
    """The comparison by the API of a running system."""

    def __init__(self, api_url: str) -> None:
        self._api = httpx.Client(base_url=api_url, timeout=_SECONDS_PER_PAGE)

    def check(self, *, limit: int) -> Iterator[Difference | Summary]:
        """As ``streams.consistency.Consistency.check``.

        Raises:
            httpx.HTTPError: The API does not answer, or refuses.
        """
        with self._api.stream("GET", "/api/v1/consistency", params={"limit": limit}) as response:
            if response.is_error:
                response.read()
            response.raise_for_status()
            for line in response.iter_lines():
                yield (Difference if '"kind":' in line else Summary).model_validate_json(line)

    def sweep(self) -> int:
        """As ``streams.consistency.Consistency.sweep``. Raises as ``check``."""
        response = self._api.post("/api/v1/consistency/sweep")
        response.raise_for_status()
        return int(response.json()["removed"])


def find_if_running(settings: Settings) -> Running | None:
    """The system that the settings name, if it runs."""
    try:
        return find(settings)
    except NotRunningError:
        return None


@contextmanager
def opened_consistency(settings: Settings, running: Running | None) -> Iterator[Checker]:
    """The comparison by whoever can open the stores: a running system's node, or this process.

    Raises:
        PipelineError: A store cannot be opened.
    """
    on_servers = bool(settings.vectors.url and settings.graph.url)
    if running and not on_servers:
        yield RemoteConsistency(running.api_url)
        return
    with ExitStack() as stack:
        vectors, graph = open_vectors(settings).store, open_graph_store(settings)
        stack.callback(vectors.close)
        stack.callback(graph.close)
        view = None
        if running:
            view = StatusView(
                running.bootstrap_servers, max_documents=settings.status.max_documents, generation=settings.generation
            )
            view.start()
            stack.callback(view.stop)
        servers = running.bootstrap_servers if running else ""
        yield consistency_of(vectors, graph, view, servers, generation=settings.generation)
