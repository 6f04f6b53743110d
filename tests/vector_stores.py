"""The vector stores that the suites run on: Qdrant Edge, qdrant-client's own engine, a server where there is one."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from qdrant_client import QdrantClient

from api.retrievers.edge import EdgeRetriever
from api.retrievers.hits import Retriever
from api.retrievers.qdrant import QdrantRetriever
from deploy import stores
from processors.bm25 import Bm25Encoder
from schemas.records import Chunk, EmbeddedChunk, Revision, Vector
from streams.sinks.edge import EdgeVectorStore, open_shard
from streams.sinks.qdrant import QdrantVectorStore, open_collection

VectorStore = stores.VectorStore
MODEL = "tests/tiny"
DIMENSION = 8
SERVER = os.environ.get("AEGIS_TEST_QDRANT_URL")
KINDS = ["edge", "memory", *(["server"] if SERVER else [])]

bm25 = Bm25Encoder()


@dataclass
class Sides:
    """Both sides of one opened store."""

    sink: VectorStore
    retriever: Retriever


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Sides]:
    """An empty store, removed afterwards."""
    if kind == "edge":
        sides = opened_edge(folder)
        yield sides
        sides.sink.close()
        return
    client = QdrantClient(":memory:") if kind == "memory" else QdrantClient(url=SERVER)
    collection = open_collection(client, model=f"{MODEL}-{uuid4()}", dimension=DIMENSION)
    yield opened_qdrant(client, collection)
    client.delete_collection(collection)
    client.close()


def opened_edge(folder: Path) -> Sides:
    shard = open_shard(folder, model=MODEL, dimension=DIMENSION)
    sink = EdgeVectorStore(shard, bm25.document, folder=folder, model=MODEL, dimension=DIMENSION)
    return Sides(sink, EdgeRetriever(shard))


def opened_qdrant(client: QdrantClient, collection: str) -> Sides:
    sink = QdrantVectorStore(client, collection, bm25.document, model=MODEL, dimension=DIMENSION)
    return Sides(sink, QdrantRetriever(client, collection))


def embedded(document_id: str, texts: list[str], revision: Revision, **fields: object) -> list[EmbeddedChunk]:
    """A document's chunks with vectors that follow from their texts."""
    return [
        EmbeddedChunk.of(
            Chunk.model_validate(
                {
                    "document_id": document_id,
                    "version": revision.version,
                    "sequence": revision.sequence,
                    "chunk_index": index,
                    "chunk_count": len(texts),
                    "text": text,
                    "start": 0,
                    "end": len(text),
                    "content_hash": "|".join(texts),
                    **fields,
                }
            ),
            vector_of(text),
            MODEL,
        )
        for index, text in enumerate(texts)
    ]


def vector_of(text: str) -> Vector:
    return np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION).astype(np.float32)
