"""What the API needs from the streaming side and from the models; ``deploy`` hands it in.

The API knows nothing of Kafka: these protocols are all it asks for. Every call may block and is made in a thread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from api.access.access import Access
from api.retrievers.graph import Graph
from api.retrievers.hits import Retriever
from processors.llm import Turn
from processors.llm_stream import Step, Usage
from processors.micro_batcher import Priority
from processors.rerankers import Reranker
from processors.routing.overview import Overview
from schemas.consistency import Difference, Summary
from schemas.dead_letters import Backlog, DeadLetter, Filter
from schemas.records import STAGES, DocumentRecord, StageName, Vector, Verdict
from schemas.status import DocumentStatus, Stuck
from schemas.storage import SparseVector


class Published(Protocol):
    """A document as it was sent."""

    @property
    def document_id(self) -> str:
        """The record's key."""

    @property
    def version(self) -> int:
        """The version it was given."""

    @property
    def correlation_id(self) -> str:
        """In the headers of every record made from it."""


class Publisher(Protocol):
    """Writes to the documents topic.

    Raises (all methods):
        UnavailableError: The broker does not take it.
    """

    def publish(self, document: DocumentRecord, *, correlation_id: str | None = None) -> Published:
        """Send a document; returns before the broker has it."""

    def delete(self, document_id: str, *, version: int | None = None, correlation_id: str | None = None) -> Published:
        """Send a document's removal; returns before the broker has it."""

    def decide(
        self, first: str, second: str, verdict: Verdict, reason: str, *, correlation_id: str | None = None
    ) -> Published:
        """Send what a person decided about two entities, by id; returns before the broker has it."""

    def flush(self, *, timeout: float = 60.0) -> None:
        """Wait until the broker has everything that was sent."""


class StatusView(Protocol):
    """Where documents are, from memory."""

    def get(self, document_id: str) -> DocumentStatus | None:
        """What is known of a document."""

    def recent(self, limit: int, *, tenant: str | None = None) -> Sequence[DocumentStatus]:
        """The documents that changed last, newest first; only the tenant's when given."""

    def unfinished(self) -> Sequence[DocumentStatus]:
        """The documents of which something is still to come, the longest unchanged first."""

    def counts(self, *, tenant: str | None = None) -> Mapping[str, int]:
        """Number of documents by state; only the tenant's when given."""


class PartitionLag(Protocol):
    """Lag of one partition."""

    @property
    def topic(self) -> str:
        """The partition's topic."""

    @property
    def partition(self) -> int:
        """The partition's number."""

    @property
    def committed(self) -> int | None:
        """Offset of the next record to read; None where the group never committed."""

    @property
    def end(self) -> int:
        """Offset that the next record to be written will have."""

    @property
    def records(self) -> int | None:
        """Records not read."""

    @property
    def seconds(self) -> float | None:
        """Age of the oldest record not read."""


class GroupLag(Protocol):
    """Lag of one consumer group."""

    @property
    def group(self) -> str:
        """The group's name."""

    @property
    def stage(self) -> StageName:
        """The stage that the group reads for."""

    @property
    def topic(self) -> str:
        """What the group reads."""

    @property
    def records(self) -> int | None:
        """Records not read; None where the group never committed."""

    @property
    def seconds(self) -> float | None:
        """Age of the oldest record not read; 0 without lag, None when the group never read."""

    @property
    def records_per_second(self) -> float | None:
        """Records read per second."""

    @property
    def eta_seconds(self) -> float | None:
        """When the lag will be gone; None while it does not shrink."""

    @property
    def members(self) -> int:
        """Consumers in the group."""

    @property
    def verdict(self) -> str:
        """OK, WARN, STALL, REWIND, STOP or UNKNOWN."""

    @property
    def partitions(self) -> Sequence[PartitionLag]:
        """The same per partition."""


class LagMeter(Protocol):
    """Measures consumer lag at the broker. Both methods raise if the broker does not answer."""

    def measure(self, stages: Sequence[StageName] = STAGES, *, retries: bool = False) -> Sequence[GroupLag]:
        """Lag of each stage's group now."""

    def seconds_behind(self, stage: StageName) -> float | None:
        """Age of the oldest record that the stage has not read; 0 without lag, None when it never read."""


class RawRecord(Protocol):
    """A record as it lies in its topic."""

    @property
    def value(self) -> bytes | None:
        """Its value, byte for byte."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers, in order."""


class DeadLetters(Protocol):
    """The dead-letter topics. Every method reads whole topics, and raises if the broker does not answer."""

    def find(self, which: Filter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        """Unresolved dead letters, oldest first."""

    def show(self, letter_id: str) -> tuple[DeadLetter, RawRecord] | None:
        """One dead letter with its record; None if there is none or it is resolved."""

    def replay(self, which: Filter, *, limit: int | None = None) -> Iterator[DeadLetter]:
        """Send matching dead letters back to their stage's source; yields each when sent."""

    def drop(self, which: Filter, *, limit: int | None = None) -> Iterator[DeadLetter]:
        """Give matching dead letters up for good; yields each."""

    def backlog(self) -> Sequence[Backlog]:
        """How many unresolved dead letters each stage has, and since when."""


class Embeddings(Protocol):
    """The embedding model of this process, shared with everything else that embeds here."""

    @property
    def name(self) -> str:
        """What the records and the collections call the model."""

    @property
    def dimension(self) -> int:
        """Components of a vector."""

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens that the model reads of these texts, all together."""

    def submit(
        self, texts: Sequence[str], *, priority: Priority, caller: str = "", deadline: float | None = None
    ) -> Future[NDArray[np.float32]]:
        """Vectors of the texts, in order, once it is their turn; cancelling drops what has not run yet.

        Raises:
            OverloadedError: Too much waits already.
        """


class Extractions(Protocol):
    """What extraction has lately done, wherever it runs."""

    def summary(self, now: float) -> Mapping[str, object]:
        """The fields of ``api.routes.extraction.Seen``, at ``now``, in seconds since the epoch as all times in it."""


class Consistency(Protocol):
    """Compares both stores and the status topic.

    Raises (both methods):
        PipelineError: A store fails.
    """

    def check(self, *, limit: int) -> Iterator[Difference | Summary]:
        """Differences as they are found, at most ``limit``, with summaries between them; the last one is done."""

    def sweep(self) -> int:
        """Remove from the graph what nothing in the documents topic leads to; the number of things removed."""


class Reply(Protocol):
    """Pieces of an answer as they come; reading one blocks and may raise an ``UnavailableError``."""

    @property
    def model(self) -> str | None:
        """Who speaks, once the first piece is there."""

    @property
    def usage(self) -> Usage | None:
        """The tokens it took, once it is over, if they are known."""

    @property
    def cut(self) -> bool:
        """Whether it ended for its length."""

    @property
    def route(self) -> Sequence[Step]:
        """Which models were thought of, in order, where there are several."""

    def __next__(self) -> str:
        """The next piece."""

    def close(self) -> None:
        """Stop it, from any thread."""


class Chat(Protocol):
    """A language model."""

    @property
    def name(self) -> str:
        """What it is called."""

    def stream(self, turns: Sequence[Turn], *, max_tokens: int | None = None, timeout: float | None = None) -> Reply:
        """Ask; nothing is sent before the first piece is read."""


@dataclass(frozen=True)
class Ports:
    """Everything the API stands on.

    ``stuck(older_than, limit)`` finds the documents without progress for so many seconds, the longest first.
    ``language_models`` tells how those that ``chat`` chooses from stand; it raises if their ledger fails.
    ``healths`` gives each stage of this process its summary, with ``ready`` and ``reason`` in it.
    """

    publisher: Publisher
    status: StatusView
    extractions: Extractions
    lag: LagMeter
    dead_letters: DeadLetters
    stuck: Callable[[float, int], Sequence[Stuck]]
    retriever: Retriever
    graph: Graph
    embeddings: Embeddings
    embed_query: Callable[[str], Vector]
    encode_query: Callable[[str], SparseVector]
    healths: Callable[[], Mapping[str, Mapping[str, object]]]
    consistency: Consistency
    access: Access
    reranker: Reranker | None = None
    chat: Chat | None = None
    language_models: Callable[[], Overview] | None = None
