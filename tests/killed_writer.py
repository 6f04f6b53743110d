"""A process that writes to the embedded vector store and is killed the moment the last write returned."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from schemas.records import Chunk, EmbeddedChunk, Revision
from streams.sinks.edge import EdgeVectorStore, open_shard
from streams.sinks.index import Head

MODEL, DIMENSION = "tests/tiny", 8
DOCUMENTS = 41
TEXTS = ["one", "two", "three"]
REVISION = Revision(1, 7)
HEAD = Head(latest=REVISION, live=REVISION, complete=True, chunk_count=len(TEXTS), content_hash="h")


def main(folder: Path) -> None:
    shard = open_shard(folder, model=MODEL, dimension=DIMENSION)
    sink = EdgeVectorStore(shard, lambda text: ([len(text)], [1.0]), folder=folder, model=MODEL, dimension=DIMENSION)
    for number in range(DOCUMENTS):
        sink.write({}, _chunks(f"d{number}"), live=False)
        sink.make_live(f"d{number}", REVISION)
        sink.write({f"d{number}": HEAD}, [], live=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _chunks(document_id: str) -> list[EmbeddedChunk]:
    return [
        EmbeddedChunk.of(
            Chunk(
                document_id=document_id,
                version=REVISION.version,
                sequence=REVISION.sequence,
                chunk_index=index,
                chunk_count=len(TEXTS),
                text=text,
                start=0,
                end=len(text),
                content_hash="h",
            ),
            np.random.default_rng(index).standard_normal(DIMENSION).astype(np.float32),
            MODEL,
        )
        for index, text in enumerate(TEXTS)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
