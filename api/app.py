"""The API's composition root."""

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from api import examples, problems
from api.access.guard import Guard
from api.access.rules import allowed_hosts
from api.answers.flow import Answers
from api.body_limit import BodyLimit
from api.breakers import Breakers
from api.console.mount import PATH
from api.crashes import Crashes
from api.draining import Drained
from api.fetching import Fetcher
from api.measured import Measured
from api.metrics import RequestMetrics
from api.ports import Ports
from api.process import Process
from api.request_ids import RequestIds
from api.retrievers.entities import Entities
from api.routes import (
    access,
    chat,
    completions,
    consistency,
    dead_letters,
    decisions,
    documents,
    embeddings,
    extraction,
    graph,
    health,
    llm,
    operations,
    reranking,
    searching,
    statuses,
)
from api.search import Search
from api.tracing import TELEMETRY
from schemas.settings import Settings

_PROBLEM = {"description": "A problem (RFC 9457).", "content": {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}}}
_CREDENTIALS = (HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False))
_CHUNK_LAG_MAX_AGE = 2.0


def create_app(settings: Settings, ports: Ports, process: Process | None = None) -> FastAPI:
    """The API over ``ports``. It owns none of them: whoever made them closes them.

    Apps that follow one another in a process (``api.switch.Switch``) are given what they share as ``process``.
    """
    process = process or Process.of(settings)
    console = process.console
    app = FastAPI(
        title="Aegis Streams",
        version="1",
        description="Publish documents, follow them into the index, search them.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        telemetry=TELEMETRY,
        responses={"default": _PROBLEM},
        lifespan=console.lifespan if console else None,
        dependencies=[Security(scheme) for scheme in _CREDENTIALS],  # described here, checked by the guard
    )
    problems.install(app)
    breakers = Breakers(settings.api)
    ports = breakers.around(ports)
    app.state.draining = process.draining
    # The last one added meets a request first.
    app.add_middleware(BodyLimit, max_body_mb=settings.api.max_body_mb, large=frozenset({documents.DOCUMENTS}))
    app.add_middleware(Guard, access=ports.access, hosts=allowed_hosts(settings.api.host, settings.access.hosts))
    app.add_middleware(Crashes)
    app.add_middleware(Drained, draining=process.draining)
    app.add_middleware(RequestMetrics)
    app.add_middleware(RequestIds)
    chunk_lag = Measured(lambda: ports.lag.seconds_behind("chunk"), max_age=_CHUNK_LAG_MAX_AGE)
    app.include_router(access.router(ports.access))
    app.include_router(
        documents.router(ports.publisher, chunk_lag, Fetcher(settings.api), max_lag=settings.api.max_lag_seconds)
    )
    app.include_router(statuses.router(ports.status))
    search = Search(ports, rerank_candidates=settings.reranking.candidates, graph_timeout=settings.graph.search_timeout)
    app.include_router(searching.router(search, timeout=settings.api.search_timeout))
    answers = Answers(ports, search, settings, breakers, process.sessions)
    app.include_router(chat.router(answers))
    app.include_router(completions.router(answers))
    app.include_router(llm.router(ports, breakers, settings.answers))
    entities = Entities(ports.graph, score=settings.graph.alias_score, scores=settings.graph.alias_scores)
    app.include_router(decisions.router(entities, ports.publisher))
    app.include_router(graph.router(ports.graph, entities))
    app.include_router(embeddings.router(ports.embeddings, settings.api))
    app.include_router(reranking.router(ports.reranker, settings.api))
    app.include_router(operations.router(ports))
    app.include_router(dead_letters.router(ports.dead_letters))
    app.include_router(consistency.router(ports.consistency))
    app.include_router(health.router(ports, chunk_lag, breakers))
    app.include_router(extraction.router(ports, settings.extraction))
    examples.show(app)
    if console:
        app.mount(PATH, console)
    return app
