"""A worker process as `aegis worker` runs it, whose stores and embedder fail while a flag file exists."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from deploy.logs import configure_logs
from deploy.processes import run_worker
from deploy.stores import open_graph_store, open_vectors
from processors.embed import Embedder
from processors.errors import TransientError, UnavailableError
from schemas.records import STAGES
from schemas.settings import settings_from_environment
from streams.sinks.index import Store

REFUSING = "store-refuses-writes"
GRAPH_REFUSING = "graph-refuses-writes"
TRANSIENT = "embedding-fails"
STUBBED = "embedding-is-stubbed"
REFUSED = "a-write-was-refused"
FAILED = "an-embedding-failed"
MARKER = "Wobbly"


class RefusingStore:
    """The real store, refusing every write while one of the flags is there."""

    def __init__(self, store: Store[Any], *flags: Path) -> None:
        self._store = store
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        if name in ("write", "make_live", "erase") and any(flag.exists() for flag in self._flags):
            self._flags[0].with_name(REFUSED).touch()
            raise UnavailableError("the store refuses writes (injected)")
        return getattr(self._store, name)


def fail_on_marker(flag: Path) -> None:
    """Let embedding fail for texts with the marker while the flag is there."""
    embed = Embedder.embed

    def failing(self: Embedder, texts: Sequence[str]) -> Any:
        if flag.exists() and any(MARKER in text for text in texts):
            flag.with_name(FAILED).touch()
            raise TransientError("embedding failed (injected)")
        return embed(self, texts)

    Embedder.embed = failing  # type: ignore[method-assign]


def stub_embedding() -> None:
    """Vectors without a model, for the one measurement that is about everything else."""

    def stubbed(self: Embedder, texts: Sequence[str]) -> Any:
        vectors = np.array([np.random.default_rng(crc32(text.encode())).standard_normal(384) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    Embedder.embed = stubbed  # type: ignore[method-assign]


def main(stages: str, port: str, flags: str) -> None:
    """Run."""
    settings = settings_from_environment()
    configure_logs(settings)
    if (Path(flags) / STUBBED).exists():
        stub_embedding()
    fail_on_marker(Path(flags) / TRANSIENT)
    refusing = Path(flags) / REFUSING
    run_worker(
        settings,
        settings.kafka.bootstrap_servers,
        [stage for stage in STAGES if stage in stages.split(",")],
        health_port=int(port),
        vectors=lambda: RefusingStore(open_vectors(settings).store, refusing),
        graph=lambda: RefusingStore(open_graph_store(settings), refusing, Path(flags) / GRAPH_REFUSING),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
