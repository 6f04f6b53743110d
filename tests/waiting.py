"""Waiting for what another thread or process brings about."""

import time
from collections.abc import Callable

# Long enough for a busy machine: only what never comes takes this long.
PATIENCE = 180.0


def until(met: Callable[[], object], *, within: float = PATIENCE, pause: float = 0.02, what: object = "") -> None:
    """Raises AssertionError, with ``what`` (asked only then, if it can be called), once ``within`` seconds are over."""
    deadline = time.monotonic() + within
    while not met():
        if time.monotonic() > deadline:
            raise AssertionError(f"it never happened: {what() if callable(what) else what}")
        time.sleep(pause)
