"""The real broker the tests run on: attached to if AEGIS_TEST_KAFKA says where, else started once per session."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.broker import Broker


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Bootstrap servers of a broker; nothing is skipped when none can be started: the test fails."""
    if attached := os.environ.get("AEGIS_TEST_KAFKA"):
        yield attached
        return
    started = Broker(folder)
    started.start()
    try:
        yield started.bootstrap_servers
    finally:
        started.stop()
