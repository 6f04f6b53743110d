"""The whole system on one machine: broker, node (API and index stages), worker (chunk, embed), extractor (extract)."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.generations import in_effect, overruled
from deploy.local.broker import Broker, free_port, require_free
from deploy.local.supervisor import Child, Supervisor, command_child
from deploy.running import Running, announce, owned
from schemas.settings import Settings
from streams.security import secure
from streams.topics import create_topics

WORKERS = {"worker": "chunk,embed", "extractor": "extract"}
"""Each process with its stages: vectors do not wait for the graph (docs/adr/0015)."""


@dataclass(frozen=True)
class System:
    """A running system."""

    running: Running
    supervisor: Supervisor
    broker: Broker | None
    health_urls: Mapping[str, str]
    """Of each process of ``WORKERS``."""

    def wait_until_ready(self, *, timeout: float = 120.0) -> None:
        """Wait until every stage takes records and the API answers.

        Raises:
            RuntimeError: It does not, with the end of the logs.
        """
        urls = [f"{url}/health/ready" for url in (self.running.api_url, *self.health_urls.values())]
        deadline = time.monotonic() + timeout
        while urls and time.monotonic() < deadline and self.supervisor.failure is None:
            if _answers_ok(urls[0]):
                urls.pop(0)
            else:
                time.sleep(0.1)
        if urls:
            logs = "\n".join(f"--- {child.name}\n{child.last_words()}" for child in self.supervisor.children)
            raise RuntimeError(self.supervisor.failure or f"not ready after {timeout:g} s: {urls[0]}\n{logs}")


@contextmanager
def started(settings: Settings, *, say: Callable[[str], None] = lambda line: None) -> Iterator[System]:
    """Start everything on ``settings.data_dir``; stop it in the reverse order on leaving.

    Raises:
        NotRunningError: The data folder is in use or cannot be written.
        RuntimeError: The broker, a port or a child makes a start impossible.
    """
    folder = settings.data_dir.resolve()
    secure(settings.kafka)
    with owned(folder):
        for line in overruled(settings):
            say(f"Note: {line}")
        generation = in_effect(settings).generation
        broker = _started_broker(folder / "broker", settings, say)
        try:
            servers = broker.bootstrap_servers if broker else settings.kafka.bootstrap_servers
            create_topics(servers, settings.kafka, generation)
            say("Starting the node and the workers")
            system = _start_children(folder, servers, settings, broker)
            try:
                yield system
            finally:
                say("Stopping")
                system.supervisor.stop()
        except BaseException:
            if broker:
                broker.stop()
            raise


def _started_broker(folder: Path, settings: Settings, say: Callable[[str], None]) -> Broker | None:
    if settings.kafka.bootstrap_servers:
        return None
    broker = Broker(folder, port=settings.local.broker_port)
    say("Starting Apache Kafka (the first time it is fetched, about 45 MB)")
    broker.start()
    return broker


def _start_children(folder: Path, servers: str, settings: Settings, broker: Broker | None) -> System:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    api_port = settings.api.port or free_port()
    require_free(api_port, what="the API", setting="AEGIS_API__PORT")
    environment = {
        "AEGIS_DATA_DIR": str(folder),
        "AEGIS_KAFKA__BOOTSTRAP_SERVERS": servers,
        "AEGIS_KAFKA__SECURITY_PROTOCOL": settings.kafka.security_protocol,
        "AEGIS_API__HOST": settings.api.host,
        "AEGIS_API__PORT": str(api_port),
        "AEGIS_VECTORS__URL": settings.vectors.url,
        "AEGIS_BLOB_URL": settings.blob_url,
    }
    aegis = [sys.executable, "-m", "deploy.cli"]
    nice = {"worker": settings.local.worker_nice, "extractor": settings.local.extractor_nice}
    ports = {name: free_port() for name in WORKERS}
    children = [command_child("node", [*aegis, "node"], logs / "node.log", environment)]
    for name, stages in WORKERS.items():
        options = ["--stage", stages, "--health-port", str(ports[name]), "--nice", str(nice[name])]
        children.append(command_child(name, [*aegis, "worker", *options], logs / f"{name}.log", environment))
    if broker:
        children.insert(0, Child("broker", broker.spawn, folder / "broker" / "broker.log", broker.process))
    supervisor = Supervisor(children, backoff_max=settings.local.restart_backoff_max)
    supervisor.start()
    running = Running(bootstrap_servers=servers, api_url=f"http://{settings.api.host}:{api_port}", pid=os.getpid())
    announce(folder, running)
    return System(running, supervisor, broker, {name: f"http://127.0.0.1:{port}" for name, port in ports.items()})


def _answers_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
