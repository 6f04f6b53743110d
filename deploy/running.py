"""How commands find the system that `aegis up` has started: a file in its data folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from schemas.settings import Settings


class Running(BaseModel):
    """Where a started system answers."""

    bootstrap_servers: str
    api_url: str
    pid: int


class NotRunningError(Exception):
    """There is no system to talk to; the message says how to start or name one."""


def announce(folder: Path, running: Running) -> None:
    """Let commands find the system."""
    draft = folder / "running.json.draft"
    draft.write_text(running.model_dump_json())
    draft.replace(folder / "running.json")


def find(settings: Settings) -> Running:
    """The system that the settings name, or the one started on their data folder.

    Raises:
        NotRunningError: There is none.
    """
    api_url = f"http://{settings.api.host}:{settings.api.port}"
    if settings.kafka.bootstrap_servers:
        return Running(bootstrap_servers=settings.kafka.bootstrap_servers, api_url=api_url, pid=0)
    file = settings.data_dir / "running.json"
    if file.exists():
        running = Running.model_validate_json(file.read_text())
        if _is_alive(running.pid):
            return running
    raise NotRunningError(
        f"nothing is running on {settings.data_dir.resolve()}; start it with `aegis up`, or set "
        "AEGIS_KAFKA__BOOTSTRAP_SERVERS (and AEGIS_DATA_DIR, if it was started elsewhere)"
    )


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a data folder: one system per folder.

    Raises:
        NotRunningError: Another process owns it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise NotRunningError(f"the data folder {folder.resolve()} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NotRunningError(f"a system is already running on {folder.resolve()}") from error
        try:
            yield
        finally:
            (folder / "running.json").unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
