"""The long-running processes: worker, API, and the node, which is both for the owner of the embedded stores."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

import structlog
import uvicorn
from starlette.types import ASGIApp

from api.access.access import Access
from api.app import create_app
from api.draining import Draining, DrainingServer
from api.ports import Ports
from api.process import Process
from deploy.consistency import consistency_of
from deploy.extraction_watch import ExtractionWatch
from deploy.generations import in_effect
from deploy.model_metrics import LlmMetrics, ModelMetrics
from deploy.node import Index, Node
from deploy.retiring import retire_earlier
from deploy.stores import GraphSides, VectorSides, open_graph_store, open_graphs, open_vectors
from processors import build
from processors.embed import Embedder
from processors.rerankers import Reranker
from processors.routing.overview import overview
from processors.routing.router import Router
from schemas.records import EmbeddedChunk, StageName
from schemas.settings import Settings
from streams.app import Resources, Worker, run_until_signalled
from streams.dead_letters import DeadLetters
from streams.health import StageHealth
from streams.health_server import serve_health
from streams.kafka import wait_for_broker
from streams.lag import LagMeter
from streams.publisher import Publisher
from streams.sinks.index import Store
from streams.sinks.links import GraphStore
from streams.status import StatusView
from streams.stuck import stuck

log = structlog.get_logger()

_GRACE = 10  # seconds
_LOOK_EVERY = 0.5
_CATCH_UP = 600.0
NODE_STAGES: tuple[StageName, ...] = ("index-vectors", "index-graph")


def run_worker(
    settings: Settings,
    bootstrap_servers: str,
    stages: Sequence[StageName],
    *,
    health_port: int,
    health_host: str = "127.0.0.1",
    vectors: Callable[[], Store[EmbeddedChunk]] | None = None,
    graph: Callable[[], GraphStore] | None = None,
) -> None:
    """Run stages until signalled; a stage that writes to an embedded store makes this process its owner."""
    wait_for_broker(bootstrap_servers)
    view = cache(lambda: _view(settings, bootstrap_servers))
    extraction = ExtractionWatch()
    resources = Resources(
        settings,
        bootstrap_servers,
        view,
        vectors=vectors or (lambda: open_vectors(settings).store),
        graph=graph or (lambda: open_graph_store(settings)),
        observe=ModelMetrics(settings.embedding.model),
        observe_extraction=extraction,
        observe_llm=LlmMetrics(),
    )
    worker = Worker(resources, stages)
    reading = extraction.summary if "extract" in stages else None
    serve_health(worker.healths, extraction=reading, host=health_host, port=health_port)
    run_until_signalled(lambda stopping: _run_while_live(worker, settings, stopping))


async def _run_while_live(worker: Worker, settings: Settings, stopping: asyncio.Event) -> None:
    """Run until told to stop, or until another generation answers: whoever starts this process again starts that."""

    async def look() -> None:
        while in_effect(settings).generation == settings.generation:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(_LOOK_EVERY)
        stopping.set()

    looking = asyncio.create_task(look())
    await worker.run(stopping)
    looking.cancel()


@dataclass(frozen=True)
class _Lasting:
    """What the API stands on whichever index it answers from."""

    access: Access
    reranker: Reranker | None
    chat: Router | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        reranker = build.build_reranker(settings, observe=LlmMetrics())
        chat = build.build_chat(settings, observe=LlmMetrics())  # the last: its budgets are the ones in the metrics
        return cls(Access(settings), reranker, chat)


def run_node(settings: Settings, bootstrap_servers: str) -> None:
    """Run the index stages and the API over the same opened stores, until signalled."""
    lasting, process = _Lasting.of(settings), Process.of(settings)
    lasting.access.check()
    node = Node(
        settings,
        lambda settings: _open_index(settings, bootstrap_servers, lasting, process),
        retire=partial(retire_earlier, bootstrap_servers),
    )
    server = _server(settings, node.app, process.draining)
    thread = threading.Thread(target=_serve_or_exit, args=[server], name="api", daemon=True)
    thread.start()
    run_until_signalled(node.run)
    server.should_exit = True
    thread.join(timeout=settings.api.drain + _GRACE)
    node.close()


def _open_index(settings: Settings, bootstrap_servers: str, lasting: _Lasting, process: Process) -> Index:
    """Everything that the node holds of one generation."""
    view = _view(settings, bootstrap_servers)
    vectors, graphs = open_vectors(settings), open_graphs(settings)
    resources = Resources(
        settings, bootstrap_servers, lambda: view, vectors=lambda: vectors.store, graph=lambda: graphs.store
    )
    worker = Worker(resources, NODE_STAGES)
    publisher, embedder = Publisher(bootstrap_servers, settings), _embedder(settings)
    ports = _ports(
        settings,
        bootstrap_servers,
        lasting,
        vectors=vectors,
        graphs=graphs,
        publisher=publisher,
        view=view,
        healths=worker.healths,
        embedder=embedder,
    )

    def warm() -> None:
        embedder.embed_query("Which one answers?")
        view.catch_up(timeout=_CATCH_UP)

    def close() -> None:
        publisher.close()
        embedder.close()
        graphs.close()
        view.stop()

    return Index(settings, create_app(settings, ports, process), worker, view, warm, close)


def run_api(settings: Settings, bootstrap_servers: str) -> None:
    """Run the API alone, on server stores."""
    if not (settings.vectors.url and settings.graph.url):
        raise ValueError(
            "`aegis api` needs AEGIS_VECTORS__URL and AEGIS_GRAPH__URL; embedded stores are served by `aegis up`"
        )
    lasting = _Lasting.of(settings)
    try:
        lasting.access.check()
    except ValueError as error:  # in a container, where `aegis keys create` runs beside this process
        log.error("nobody-is-let-in", reason=str(error))  # noqa: TRY400
    view = _view(settings, bootstrap_servers)
    with Publisher(bootstrap_servers, settings) as publisher:
        ports = _ports(
            settings,
            bootstrap_servers,
            lasting,
            vectors=open_vectors(settings),
            graphs=open_graphs(settings),
            publisher=publisher,
            view=view,
            healths={},
            embedder=_embedder(settings),
        )
        process = Process.of(settings)
        _server(settings, create_app(settings, ports, process), process.draining).run()
    view.stop()


def _serve_or_exit(server: uvicorn.Server) -> None:
    """A node without its API is no node: the supervisor has to know."""
    try:
        server.run()
    except BaseException as error:  # uvicorn exits when it cannot bind
        log.critical("api-ended", error=repr(error))
    if not server.should_exit:
        os._exit(1)


def _view(settings: Settings, bootstrap_servers: str) -> StatusView:
    wait_for_broker(bootstrap_servers)
    view = StatusView(bootstrap_servers, max_documents=settings.status.max_documents, generation=settings.generation)
    view.start()
    return view


def _ports(
    settings: Settings,
    bootstrap_servers: str,
    lasting: _Lasting,
    *,
    vectors: VectorSides,
    graphs: GraphSides,
    publisher: Publisher,
    view: StatusView,
    healths: Mapping[StageName, StageHealth],
    embedder: Embedder,
) -> Ports:
    generation = settings.generation
    return Ports(
        publisher=publisher,
        status=view,
        extractions=view.extractions,
        lag=LagMeter(bootstrap_servers, generation=generation),
        dead_letters=DeadLetters(bootstrap_servers, generation=generation),
        stuck=lambda older_than, limit: stuck(
            bootstrap_servers, view.unfinished(), older_than=older_than, limit=limit, generation=generation
        ),
        retriever=vectors.retriever,
        graph=graphs.reader,
        embeddings=embedder,
        embed_query=embedder.embed_query,
        encode_query=build.build_sparse_encoder().query,
        healths=_summaries(healths),
        consistency=consistency_of(vectors.store, graphs.store, view, bootstrap_servers, generation=generation),
        access=lasting.access,
        reranker=lasting.reranker,
        chat=lasting.chat,
        language_models=partial(overview, lasting.chat) if lasting.chat else None,
    )


def _embedder(settings: Settings) -> Embedder:
    """The model of the query side, being loaded."""
    embedder = build.build_embedder(settings, observe=ModelMetrics(settings.embedding.model))
    threading.Thread(target=embedder.load, name="load-model", daemon=True).start()
    return embedder


def _summaries(healths: Mapping[StageName, StageHealth]) -> Callable[[], Mapping[str, Mapping[str, object]]]:
    return lambda: {stage: health.summary() for stage, health in healths.items()}


def _server(settings: Settings, app: ASGIApp, draining: Draining) -> uvicorn.Server:
    configuration = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
    )
    return DrainingServer(configuration, draining, within=settings.api.drain)
