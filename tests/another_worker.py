"""One more worker beside those of a running system."""

import sys
from pathlib import Path

from deploy.local.broker import free_port
from deploy.local.supervisor import Child, command_child
from deploy.local.system import WORKERS


def another_worker(name: str, data_dir: Path, bootstrap_servers: str, log: Path) -> tuple[Child, int]:
    """A started process of the stages that need no store, and the port of its health."""
    port = free_port()
    command = [sys.executable, "-m", "deploy.cli", "worker", "--stage", ",".join(WORKERS.values())]
    environment = {"AEGIS_DATA_DIR": str(data_dir), "AEGIS_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers}
    child = command_child(name, [*command, "--health-port", str(port)], log, environment)
    child.start()
    return child, port
