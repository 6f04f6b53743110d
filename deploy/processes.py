"""The long-running processes: worker, API, and the node, which is both for the owner of the embedded stores."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import structlog
import uvicorn

from api.access.access import Access
from api.app import create_app
from api.draining import DrainingServer
from api.ports import Ports
from deploy.consistency import consistency_of
from deploy.extraction_watch import ExtractionWatch
from deploy.model_metrics import LlmMetrics, ModelMetrics
from deploy.stores import GraphSides, VectorSides, once, open_graph_store, open_graphs, open_vectors
from processors import build
from processors.routing.overview import overview
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
    run_until_signalled(worker.run)


def run_node(settings: Settings, bootstrap_servers: str) -> None:
    """Run the index stages and the API over the same opened stores, until signalled."""
    access = Access(settings)
    access.check()
    view = _view(settings, bootstrap_servers)
    vectors, graphs = once(open_vectors, settings), once(open_graphs, settings)
    resources = Resources(
        settings,
        bootstrap_servers,
        lambda: view,
        vectors=lambda: vectors().store,
        graph=lambda: graphs().store,
    )
    worker = Worker(resources, NODE_STAGES)
    with Publisher(bootstrap_servers, settings) as publisher:
        ports = _ports(
            settings,
            bootstrap_servers,
            vectors=vectors(),
            graphs=graphs(),
            publisher=publisher,
            view=view,
            healths=worker.healths,
            access=access,
        )
        server = _server(settings, ports)
        thread = threading.Thread(target=_serve_or_exit, args=[server], name="api", daemon=True)
        thread.start()
        run_until_signalled(worker.run)
        server.should_exit = True
        thread.join(timeout=settings.api.drain + _GRACE)
    view.stop()


def run_api(settings: Settings, bootstrap_servers: str) -> None:
    """Run the API alone, on server stores."""
    if not (settings.vectors.url and settings.graph.url):
        raise ValueError(
            "`aegis api` needs AEGIS_VECTORS__URL and AEGIS_GRAPH__URL; embedded stores are served by `aegis up`"
        )
    access = Access(settings)
    try:
        access.check()
    except ValueError as error:  # in a container, where `aegis keys create` runs beside this process
        log.error("nobody-is-let-in", reason=str(error))  # noqa: TRY400
    view = _view(settings, bootstrap_servers)
    with Publisher(bootstrap_servers, settings) as publisher:
        ports = _ports(
            settings,
            bootstrap_servers,
            vectors=open_vectors(settings),
            graphs=open_graphs(settings),
            publisher=publisher,
            view=view,
            healths={},
            access=access,
        )
        _server(settings, ports).run()
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
    view = StatusView(bootstrap_servers, max_documents=settings.status.max_documents)
    view.start()
    return view


def _ports(
    settings: Settings,
    bootstrap_servers: str,
    *,
    vectors: VectorSides,
    graphs: GraphSides,
    publisher: Publisher,
    view: StatusView,
    healths: Mapping[StageName, StageHealth],
    access: Access,
) -> Ports:
    embedder = build.build_embedder(settings, observe=ModelMetrics(settings.embedding.model))
    reranker = build.build_reranker(settings, observe=LlmMetrics())
    chat = build.build_chat(settings, observe=LlmMetrics())  # the last: its budgets are the ones in the metrics
    threading.Thread(target=embedder.load, name="load-model", daemon=True).start()
    return Ports(
        publisher=publisher,
        status=view,
        extractions=view.extractions,
        lag=LagMeter(bootstrap_servers),
        dead_letters=DeadLetters(bootstrap_servers),
        stuck=lambda older_than, limit: stuck(bootstrap_servers, view.unfinished(), older_than=older_than, limit=limit),
        retriever=vectors.retriever,
        graph=graphs.reader,
        embeddings=embedder,
        embed_query=embedder.embed_query,
        encode_query=build.build_sparse_encoder().query,
        healths=_summaries(healths),
        consistency=consistency_of(vectors.store, graphs.store, view, bootstrap_servers),
        access=access,
        reranker=reranker,
        chat=chat,
        language_models=partial(overview, chat) if chat else None,
    )


def _summaries(healths: Mapping[StageName, StageHealth]) -> Callable[[], Mapping[str, Mapping[str, object]]]:
    return lambda: {stage: health.summary() for stage, health in healths.items()}


def _server(settings: Settings, ports: Ports) -> uvicorn.Server:
    app = create_app(settings, ports)
    configuration = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
    )
    return DrainingServer(configuration, app.state.draining, within=settings.api.drain)
