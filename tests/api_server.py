"""A real HTTP server over ports that live in memory: the API's tests need no broker, no store and no model."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from structlog.contextvars import merge_contextvars
from structlog.processors import format_exc_info
from structlog.testing import capture_logs

from api.access.access import Access
from api.access.keys import NewKey
from api.access.principals import TierName
from api.app import create_app
from api.draining import DrainingServer
from api.ports import Chat, Ports
from api.retrievers.graph import Graph
from api.retrievers.hits import DocumentState, Hit
from processors import build, filters
from processors.embed import Embedder, mapped
from processors.errors import UnavailableError
from processors.micro_batcher import MicroBatcher, Priority
from processors.routing.overview import Overview
from schemas.consistency import Difference, Summary
from schemas.dead_letters import Backlog, DeadLetter, Filter, stage_of
from schemas.ids import document_prefix, entity_pair_id
from schemas.records import STAGES, Decision, DocumentRecord, StageName, State, StatusRecord, Vector, Verdict
from schemas.settings import Answers, Api, Settings
from schemas.settings import Graph as GraphSettings
from schemas.status import SETTLED, DocumentStatus, Stuck
from schemas.storage import ChunkPayload, SparseVector
from streams.extraction_log import ExtractionLog
from streams.lag import GroupLag, PartitionLag
from streams.publisher import Published
from streams.record import Record
from tests.waiting import PATIENCE, until


def opened() -> threading.Event:
    """A gate that lets through until it is cleared."""
    gate = threading.Event()
    gate.set()
    return gate


@dataclass
class MemoryPublisher:
    """A broker's log; what is not flushed is not in it."""

    log: list[tuple[DocumentRecord, str]] = field(default_factory=list)
    pending: list[tuple[DocumentRecord, str]] = field(default_factory=list)
    decided: list[Decision] = field(default_factory=list)
    flushes: int = 0
    down: bool = False

    def publish(self, document: DocumentRecord, *, correlation_id: str | None = None) -> Published:
        if document.document_id == "refused":
            raise ValueError("secret of the publisher")
        stamped = document.model_copy(update={"version": document.version or 1000 + len(self.log)})
        self.pending.append((stamped, correlation_id or ""))
        return Published(stamped.document_id, stamped.version or 0, correlation_id or "")

    def delete(self, document_id: str, *, version: int | None = None, correlation_id: str | None = None) -> Published:
        return self.publish(
            DocumentRecord(document_id=document_id, operation="delete", version=version), correlation_id=correlation_id
        )

    def decide(
        self, first: str, second: str, verdict: Verdict, reason: str, *, correlation_id: str | None = None
    ) -> Published:
        version = 1000 + len(self.decided)
        self.decided.append(Decision(first=first, second=second, verdict=verdict, reason=reason, version=version))
        return Published(entity_pair_id(first, second), version, correlation_id or "")

    def flush(self, *, timeout: float = 60.0) -> None:
        time.sleep(0.01)
        self.flushes += 1
        if self.down:
            raise UnavailableError("1 documents were not published: secret of another client")
        self.log += self.pending
        self.pending = []


class MemoryStatus:
    def __init__(self) -> None:
        self._documents: dict[str, DocumentStatus] = {}
        self.looks = 0

    def report(self, document_id: str, version: int, error: str | None = None, **states: State) -> None:
        status = self._documents.pop(document_id, DocumentStatus(document_id=document_id, stages={}))
        for name, state in states.items():
            stage = next(stage for stage in STAGES if stage == name.replace("_", "-"))
            status = status.with_record(
                StatusRecord(
                    document_id=document_id, version=version, stage=stage, state=state, at=time.time(), error=error
                )
            )
        self._documents[document_id] = status

    def get(self, document_id: str) -> DocumentStatus | None:
        self.looks += 1
        return self._documents.get(document_id)

    def recent(self, limit: int, *, tenant: str | None = None) -> Sequence[DocumentStatus]:
        return list(reversed(self._of(tenant)))[:limit]

    def unfinished(self) -> Sequence[DocumentStatus]:
        return [status for status in self._documents.values() if status.state not in SETTLED]

    def counts(self, *, tenant: str | None = None) -> Mapping[str, int]:
        states = [status.state for status in self._of(tenant)]
        return {state: states.count(state) for state in sorted(set(states))}

    def _of(self, tenant: str | None) -> list[DocumentStatus]:
        return [one for key, one in self._documents.items() if key.startswith(document_prefix(tenant))]


@dataclass
class MemoryLag:
    seconds: float | None = 0.0
    down: bool = False
    members: int = 1
    measured: int = 0
    gate: threading.Event = field(default_factory=opened)

    def measure(self, stages: Sequence[StageName] = STAGES, *, retries: bool = False) -> list[GroupLag]:
        if self.down:
            raise RuntimeError("secret address of the broker")
        return [self._group(stage, f"aegis-{stage}") for stage in stages] + [
            self._group(stage, f"aegis-{stage}-retry") for stage in stages if retries
        ]

    def seconds_behind(self, stage: StageName) -> float | None:
        self.measured += 1
        self.gate.wait(20)
        return self.measure([stage])[0].seconds

    def _group(self, stage: StageName, group: str) -> GroupLag:
        lag = PartitionLag(group=group, topic="t", partition=0, committed=3, end=5, records=2, seconds=self.seconds)
        return GroupLag(
            group=group,
            stage=stage,
            topic="t",
            records=2,
            seconds=self.seconds,
            members=self.members,
            verdict="OK",
            partitions=[lag],
        )


@dataclass
class MemoryDeadLetters:
    """Letters and their values, until they are resolved."""

    letters: dict[str, tuple[DeadLetter, Record]] = field(default_factory=dict)
    replayed: list[str] = field(default_factory=list)
    down: bool = False

    def add(self, letter_id: str, *, document_id: str, error: str, value: bytes = b"{}") -> None:
        stage, partition, offset = stage_of(letter_id), *map(int, letter_id.split("/")[1:])
        letter = DeadLetter(
            id=letter_id,
            stage=stage,
            document_id=document_id,
            error_class="PermanentError",
            error=error,
            attempt=0,
            first_failed_at=1.0,
            dead_lettered_at=1000.0 + len(self.letters),
            source="aegis.documents.v1/0/1",
            correlation_id="c",
        )
        record = Record(f"aegis.{stage}.dlq", partition, offset, 0, document_id.encode(), value, (("h", b"\xff1"),))
        self.letters[letter_id] = letter, record

    def find(self, which: Filter, *, limit: int | None = None) -> list[DeadLetter]:
        if self.down:
            raise RuntimeError("secret address of the broker")
        return [letter for letter, _ in self.letters.values() if which.matches(letter)][:limit]

    def show(self, letter_id: str) -> tuple[DeadLetter, Record] | None:
        return self.letters.get(letter_id)

    def replay(self, which: Filter, *, limit: int | None = None) -> Iterator[DeadLetter]:
        for letter in self.find(which, limit=limit):
            self.replayed.append(letter.id)
            del self.letters[letter.id]
            yield letter

    def drop(self, which: Filter, *, limit: int | None = None) -> Iterator[DeadLetter]:
        for letter in self.find(which, limit=limit):
            del self.letters[letter.id]
            yield letter

    def backlog(self) -> list[Backlog]:
        count = len(self.find(Filter()))
        return [Backlog(stage="chunk", count=count, oldest=time.time() - 60 if count else None)]


@dataclass
class MemoryRetriever:
    """Answers every search with ``limit`` hits and notes what it was asked."""

    searches: list[tuple[Vector | None, SparseVector | None, Sequence[str] | None]] = field(default_factory=list)
    error: Exception | None = None
    gate: threading.Event = field(default_factory=opened)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def search(
        self,
        dense: Vector | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        document_ids: Sequence[str] | None = None,
        filter_: filters.Filter | None = None,
        tenant: str | None = None,
    ) -> list[Hit]:
        with self.lock:
            self.searches.append((dense, sparse, document_ids))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.gate.wait(20)
        with self.lock:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return [_hit(index) for index in range(limit)]

    def chunks(
        self, ids: Sequence[str], *, filter_: filters.Filter | None = None, tenant: str | None = None
    ) -> dict[str, ChunkPayload]:
        return {}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return {}

    def count(self) -> int:
        if self.error is not None:
            raise self.error
        return 7

    def document(self, document_id: str) -> DocumentState | None:
        return None


class MemoryEmbeddings:
    """A real micro-batcher over a model whose vectors say how long their text is; a word is a token."""

    name = "words"
    dimension = 4

    def __init__(self, *, max_queued_tokens: int = 1000) -> None:
        self.gate = opened()
        self.computed: list[str] = []
        self.batcher = MicroBatcher(self._run, name="words", max_batch_tokens=100, max_queued_tokens=max_queued_tokens)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    def submit(
        self, texts: Sequence[str], *, priority: Priority, caller: str = "", deadline: float | None = None
    ) -> "Future[Vector]":
        lengths = [len(text.split()) for text in texts]
        rows = self.batcher.submit(texts, lengths, priority=priority, caller=caller, deadline=deadline)
        return mapped(rows, np.array)

    def _run(self, texts: Sequence[str]) -> list[Vector]:
        self.gate.wait(20)
        self.computed += texts
        return [np.array([len(text), 0, 0, 0.5], np.float32) for text in texts]


@dataclass
class MemoryReranker:
    """Likes a passage the more, the higher the number at its end."""

    name: str = "last-number"
    down: bool = False

    def rerank(self, query: str, passages: Sequence[str]) -> Vector:
        if self.down:
            raise UnavailableError("secret address of the reranker")
        return np.array([int(text.split()[-1]) / 100 for text in passages], np.float32)


@dataclass
class MemoryConsistency:
    """Finds so many differences, and removes three things."""

    found: int = 2
    gate: threading.Event = field(default_factory=opened)

    def check(self, *, limit: int) -> Iterator[Difference | Summary]:
        for number in range(min(limit, self.found)):
            yield Difference(kind="head-missing", document_id=f"d/{number}", vectors="unknown")
            yield Summary(documents=number + 1, differences=number + 1)
        self.gate.wait(20)
        yield Summary(documents=self.found, differences=self.found, done=True)

    def sweep(self) -> int:
        return 3


def _hit(index: int) -> Hit:
    return Hit(
        chunk_id=f"chunk-{index}",
        document_id="d/1",
        version=3,
        chunk_index=index,
        text=f"chunk {index}",
        start=0,
        end=7,
        headings=("A", "B"),
        title="T",
        source=None,
        media_type="text/plain",
        metadata={"team": "people", "deep": {"list": [1, None]}},
        score=1 / (index + 1),
        ranks={"dense": index + 1},
        scores={"dense": 0.5},
    )


@dataclass
class Stack:
    """A running server, and what stands behind it."""

    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    status: MemoryStatus = field(default_factory=MemoryStatus)
    extractions: ExtractionLog = field(default_factory=ExtractionLog)
    lag: MemoryLag = field(default_factory=MemoryLag)
    dead_letters: MemoryDeadLetters = field(default_factory=MemoryDeadLetters)
    stuck: Callable[[float, int], Sequence[Stuck]] = lambda older_than, limit: ()
    retriever: MemoryRetriever = field(default_factory=MemoryRetriever)
    healths: dict[str, dict[str, object]] = field(default_factory=lambda: {"embed": {"ready": True, "reason": None}})
    embeddings: MemoryEmbeddings = field(default_factory=MemoryEmbeddings)
    graph: Graph = field(default_factory=lambda: Graph(lambda query, **parameters: []))
    consistency: MemoryConsistency = field(default_factory=MemoryConsistency)
    reranker: MemoryReranker | None = None
    chat: Chat | None = None
    language_models: Callable[[], Overview] | None = None
    model: Embedder | None = None
    settings: Settings = field(default_factory=Settings)
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    embedded: list[str] = field(default_factory=list)
    http: httpx.Client = field(default_factory=httpx.Client)
    port: int = 0
    server: uvicorn.Server | None = None
    logs: Sequence[Mapping[str, object]] = ()

    @cached_property
    def access(self) -> Access:
        return Access(self.settings.model_copy(update={"data_dir": Path(self.folder.name)}))

    def token(self, *, tier: TierName = "enterprise", **grant: Any) -> dict[str, str]:
        """Headers with a new key's token."""
        _, token = self.access.keys.create(NewKey(name="test", tier=tier, **grant))
        return {"Authorization": f"Bearer {token.get_secret_value()}"}

    def embed_query(self, text: str) -> Vector:
        self.embedded.append(text)
        if self.model is not None:
            return self.model.embed_query(text)
        return np.ones(4, dtype=np.float32)

    def ports(self) -> Ports:
        return Ports(
            publisher=self.publisher,
            status=self.status,
            extractions=self.extractions,
            lag=self.lag,
            dead_letters=self.dead_letters,
            stuck=self.stuck,
            retriever=self.retriever,
            graph=self.graph,
            embeddings=self.model or self.embeddings,
            embed_query=self.embed_query,
            encode_query=build.build_sparse_encoder().query if self.model else lambda text: ([len(text)], [1.0]),
            healths=lambda: self.healths,
            consistency=self.consistency,
            access=self.access,
            reranker=self.reranker,
            chat=self.chat,
            language_models=self.language_models,
        )


@contextmanager
def serving(
    *,
    max_body_mb: int = 1,
    max_lag_seconds: float = 600.0,
    answers: Answers | None = None,
    graph_timeout: float = 10.0,
    api: Mapping[str, Any] | None = None,
    change: Callable[[Stack], None] | None = None,
    made: Callable[..., Stack] = Stack,
) -> Iterator[Stack]:
    """A stack that serves on a free port until the block ends."""
    limits = Api(max_body_mb=max_body_mb, max_lag_seconds=max_lag_seconds, **{"drain": 0.0, **(api or {})})
    stack = made(
        settings=Settings(api=limits, answers=answers or Answers(), graph=GraphSettings(search_timeout=graph_timeout))
    )
    if change is not None:
        change(stack)
    app = create_app(stack.settings, stack.ports())
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2)
    stack.server = server = DrainingServer(config, app.state.draining, within=stack.settings.api.drain)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, pause=0.005)
    stack.port = server.servers[0].sockets[0].getsockname()[1]
    client = httpx.Client(base_url=f"http://127.0.0.1:{stack.port}", timeout=30, trust_env=False)
    with client as stack.http, capture_logs(processors=[merge_contextvars, format_exc_info]) as stack.logs:
        yield stack
    server.should_exit = True
    thread.join(timeout=PATIENCE)
    assert not thread.is_alive(), "the server does not stop"
