"""Opening the stores: the embedded ones by their only owner, or the servers' adapters."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from api.retrievers.edge import EdgeRetriever
from api.retrievers.graph import Graph as GraphReader
from api.retrievers.graph import LadybugGraph
from api.retrievers.hits import Retriever
from processors import build
from processors.model_folder import model_folder
from schemas.records import EmbeddedChunk
from schemas.settings import Graph, Settings
from schemas.storage import SparseVector
from streams.sinks.edge import EdgeVectorStore, open_shard
from streams.sinks.graph_audit import Transact
from streams.sinks.holdings import Holding
from streams.sinks.index import Store
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from streams.sinks.links import GraphStore as WritableGraph
from streams.sinks.points import StoredChunk

_STORE_FOLDER = re.compile(r"(?:vectors|graph)(?:-(g\d+))?")

SparseEncoder = Callable[[str], SparseVector]


class VectorStore(Store[EmbeddedChunk], Protocol):
    """A vector store that also tells what it holds."""

    def dump(self) -> Iterator[StoredChunk]:
        """Every live chunk."""

    def staged(self) -> int:
        """Number of chunks that do not answer queries yet."""

    def document_ids(self) -> Iterator[list[str]]:
        """Pages of the documents that have a head or a chunk here, each document once."""

    def holdings(self, document_ids: Sequence[str]) -> dict[str, Holding]:
        """What is held of those documents; of at most a page of them."""


class GraphStore(WritableGraph, Protocol):
    """A graph store that also tells what it holds."""

    def dump(self) -> Iterator[tuple[Any, ...]]:
        """Canonical rows of what answers queries."""

    def orphans(self) -> int:
        """Number of things that nothing supports; 0 is right."""

    @property
    def transact(self) -> Transact:
        """Work in one transaction of its own."""


@dataclass(frozen=True)
class VectorSides:
    """The write side and the read side of one opened vector store."""

    store: VectorStore
    retriever: Retriever


def open_vectors(settings: Settings) -> VectorSides:
    """Open the vector store that the settings name; both sides share it.

    Raises:
        ValueError: It holds the vectors of another model.
        PipelineError: It cannot be opened.
    """
    encoder = model_folder(settings.embedding.model)
    model, dimension = encoder.name, encoder.dimension
    encode = build.build_sparse_encoder().document
    if settings.vectors.url:
        return _open_server(settings, encode, model=model, dimension=dimension)
    folder = store_folder(settings, "vectors")
    shard = open_shard(folder, model=model, dimension=dimension)
    edge_store = EdgeVectorStore(shard, encode, folder=folder, model=model, dimension=dimension)
    return VectorSides(edge_store, EdgeRetriever(shard))


@dataclass(frozen=True)
class GraphSides:
    """The write side and the read side of one opened graph store."""

    store: GraphStore
    reader: GraphReader
    close: Callable[[], None] = lambda: None  # what both stand on, once neither is used any more


def open_graphs(settings: Settings) -> GraphSides:
    """Open the graph store that the settings name; both sides share it.

    Raises:
        ValueError: The server does not let this user in, or has no such database.
        PipelineError: It cannot be opened.
    """
    if settings.graph.url:
        return _open_neo4j(settings.graph)
    database = open_graph(store_folder(settings, "graph"), buffer_pool_mb=settings.graph.buffer_pool_mb)
    reader = LadybugGraph(database)

    def close() -> None:
        reader.close()
        database.close()

    return GraphSides(LadybugGraphStore(database), reader, close)


def open_graph_store(settings: Settings) -> GraphStore:
    """Open the write side of the graph store alone. Raises as ``open_graphs``."""
    return open_graphs(settings).store


def store_folder(settings: Settings, store: str) -> Path:
    """Where an embedded store (``vectors``, ``graph``) of this generation lies."""
    return settings.data_dir / (f"{store}-{settings.generation}" if settings.generation else store)


def drop_stores(data_dir: Path, drop: Callable[[str], bool]) -> None:
    """Delete the embedded stores of those generations."""
    for folder in data_dir.iterdir():
        if (found := _STORE_FOLDER.fullmatch(folder.name)) and drop(found[1] or ""):
            shutil.rmtree(folder)


def _open_server(settings: Settings, encode: SparseEncoder, *, model: str, dimension: int) -> VectorSides:
    from qdrant_client import QdrantClient  # seconds to import, and the embedded default needs none of it

    from api.retrievers.qdrant import QdrantRetriever
    from streams.sinks.qdrant import QdrantVectorStore, open_collection

    key, timeout = settings.vectors.api_key, settings.vectors.timeout
    client = QdrantClient(
        url=settings.vectors.url, api_key=key.get_secret_value() if key else None, timeout=round(timeout)
    )
    collection = open_collection(client, model=model, dimension=dimension, generation=settings.generation)
    store = QdrantVectorStore(client, collection, encode, model=model, dimension=dimension)
    return VectorSides(store, QdrantRetriever(client, collection))


def _open_neo4j(graph: Graph) -> GraphSides:
    from api.retrievers.neo4j import Neo4jGraph
    from streams.sinks.neo4j import Neo4jGraphStore, connect

    password = graph.password.get_secret_value() if graph.password else None
    driver = connect(graph.url, user=graph.user, password=password, timeout=graph.timeout)
    store = Neo4jGraphStore(driver, database=graph.database, timeout=graph.timeout)
    try:
        store.create_schema()
    except BaseException:
        store.close()
        raise
    return GraphSides(store, Neo4jGraph(driver, database=graph.database, timeout=graph.timeout))
