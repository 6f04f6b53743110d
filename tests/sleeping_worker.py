"""A worker of the embed stage as `aegis worker` runs it, whose model sleeps: what waits elsewhere costs no CPU here."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.logs import configure_logs
from deploy.processes import run_worker
from processors.embed import Embedder
from schemas.settings import settings_from_environment


def sleep_instead(number: int, seconds: float) -> None:
    """Take ``seconds`` for each text; the vector, of one dimension, says which worker it was."""

    def sleeping(self: Embedder, texts: Sequence[str]) -> Any:
        time.sleep(seconds * len(texts))
        return np.full((len(texts), 1), number, np.float32)

    Embedder.embed = sleeping  # type: ignore[method-assign]
    Embedder.load = lambda self: None  # type: ignore[method-assign]


def main(number: str, seconds: str) -> None:
    """Run."""
    settings = settings_from_environment()
    configure_logs(settings)
    sleep_instead(int(number), float(seconds))
    run_worker(settings, settings.kafka.bootstrap_servers, ["embed"], health_port=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
