"""A worker: one process that runs some of the stages. The composition root of the streaming side."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from processors import build
from processors.embed import UNOBSERVED, Observer
from processors.extract import UNOBSERVED as UNOBSERVED_EXTRACTION
from processors.extract import Observer as ExtractionObserver
from processors.routing.observer import UNOBSERVED as UNOBSERVED_ROUTING
from processors.routing.observer import Observer as RoutingObserver
from schemas.records import EmbeddedChunk, StageName
from schemas.settings import Settings
from schemas.topics import SOURCES, group_of, named
from streams.agent import EXIT_UNDELIVERABLE, faust_app
from streams.blobs import Blobs
from streams.chunking import Chunker, chunk_stage
from streams.health import StageHealth
from streams.offsets import initialise_offsets
from streams.retry import RetryMover
from streams.sinks.index import Store
from streams.sinks.links import GraphStore
from streams.sinks.traced import TracedGraphStore, TracedStore
from streams.stage import Stage
from streams.stages import embed_stage, extract_stage, index_graph_stage, index_vectors_stage
from streams.status import StatusView
from streams.watchdog import start_watchdog

log = structlog.get_logger()


@dataclass(frozen=True)
class Resources:
    """What stages share or are handed: stores are opened only by the process that owns them."""

    settings: Settings
    bootstrap_servers: str
    view: Callable[[], StatusView]
    vectors: Callable[[], Store[EmbeddedChunk]] | None = None
    graph: Callable[[], GraphStore] | None = None
    observe: Observer = UNOBSERVED
    observe_extraction: ExtractionObserver = UNOBSERVED_EXTRACTION
    observe_llm: RoutingObserver = UNOBSERVED_ROUTING


@dataclass
class Worker:
    """Runs stages until it is told to stop, or ends the process when it cannot go on."""

    resources: Resources
    stages: Sequence[StageName]
    healths: dict[StageName, StageHealth] = field(init=False)

    def __post_init__(self) -> None:
        self.healths = {stage: StageHealth(stage) for stage in self.stages}

    async def run(self, stopping: asyncio.Event) -> None:
        """Start every stage and its retry mover; on ``stopping`` end them, with nothing unfinished acknowledged."""
        started = await asyncio.gather(*(self._start(name) for name in self.stages))
        await _until_stopped([one.app for one in started], stopping)
        await asyncio.gather(*(asyncio.to_thread(one.mover.stop) for one in started))
        await asyncio.gather(*(one.app.stop() for one in started))
        await asyncio.gather(*(asyncio.to_thread(one.close) for one in started))

    async def _start(self, name: StageName) -> "_Started":
        health, bootstrap_servers = self.healths[name], self.resources.bootstrap_servers
        generation = self.resources.settings.generation
        group, source = group_of(name, generation), named(SOURCES[name], generation)
        await asyncio.to_thread(initialise_offsets, bootstrap_servers, group, source)
        stage = await asyncio.to_thread(build_stage, name, self.resources, health)
        executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        app = faust_app(stage, self.resources.settings, bootstrap_servers, health, executor)
        await app.start()
        health.problem = None
        mover = RetryMover(name, bootstrap_servers, generation=generation)
        mover.start()
        start_watchdog(health, bootstrap_servers, self.resources.settings.watchdog, generation=generation)
        log.info("stage-started", stage=name)
        return _Started(stage, app, mover, executor)


@dataclass(frozen=True)
class _Started:
    stage: Stage[Any]
    app: Any
    mover: RetryMover
    executor: ThreadPoolExecutor

    def close(self) -> None:
        """Close the stage once the batch that may still be in its thread is done."""
        self.executor.shutdown()
        self.stage.close()


def build_stage(name: StageName, resources: Resources, health: StageHealth) -> Stage[Any]:
    """The stage by its name.

    Raises:
        ValueError: The stage writes to a store that this process does not have.
    """
    settings = resources.settings
    if name == "chunk":
        return chunk_stage(_chunker(resources, health), settings)
    if name == "embed":
        embedder = build.build_embedder(settings, observe=resources.observe)
        embedder.load()
        return embed_stage(embedder, settings)
    if name == "extract":
        observe, observe_llm = resources.observe_extraction, resources.observe_llm
        return extract_stage(build.build_extractor(settings, observe=observe, observe_llm=observe_llm), settings)
    if name == "index-vectors" and resources.vectors is not None:
        system = "qdrant" if settings.vectors.url else "qdrant-edge"
        return index_vectors_stage(TracedStore(resources.vectors(), system), settings)
    if name == "index-graph" and resources.graph is not None:
        system = "neo4j" if settings.graph.url else "ladybug"
        return index_graph_stage(TracedGraphStore(resources.graph(), system), settings)
    raise ValueError(f"stage {name} needs its store, which another process owns")


def _chunker(resources: Resources, health: StageHealth) -> Chunker:
    settings = resources.settings
    return Chunker(
        build.build_converter(settings),
        build.build_splitter(settings, build.build_embedder(settings)),
        Blobs(settings.blob_store_url()),
        resources.view(),
        max_input_bytes=settings.conversion.max_input_mb * 1024 * 1024,
        fingerprint=build.fingerprint(settings),
        health=health,
    )


async def _until_stopped(apps: Sequence[Any], stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        for app in apps:
            if app.crashed or app.should_stop:
                log.critical("faust-stopped", app=app.conf.id, reason=repr(app.crash_reason))
                os._exit(EXIT_UNDELIVERABLE)
        try:
            await asyncio.wait_for(stopping.wait(), timeout=0.5)
        except TimeoutError:
            continue


def run_until_signalled(main: Callable[[asyncio.Event], Any]) -> None:
    """Run ``main(stopping)`` in an event loop; SIGTERM and SIGINT set ``stopping``."""

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await main(stopping)

    asyncio.run(run())
