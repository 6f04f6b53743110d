"""`aegis up`, `worker`, `node`, `api`: starting the system and its processes."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from deploy.commands.output import fail, load_settings, out, reported
from deploy.local.supervisor import EXIT_UNUSABLE, step_back
from deploy.logs import configure_logs
from deploy.tracing import traced
from processors.errors import PermanentError
from schemas.records import STAGES, StageName
from schemas.settings import Settings


def up() -> None:
    """Start broker, node and workers on this machine and keep them running until interrupted."""
    from deploy.local.system import started

    settings = load_settings()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with reported(), started(settings, say=out.print) as system:
        system.wait_until_ready()
        out.print(f"Ready. API  {system.running.api_url}   Kafka  {system.running.bootstrap_servers}")
        out.print("`aegis publish PATH` in another terminal; Ctrl-C stops.")
        while not stopping.wait(0.5):
            if system.supervisor.failure:
                fail(system.supervisor.failure)


def worker(
    stage: Annotated[str, typer.Option("--stage", help=f"One or more of {', '.join(STAGES)}, with commas.")],
    health_port: Annotated[int, typer.Option(help="Port of /health and /metrics; 0 means any.")] = 0,
    health_host: Annotated[str, typer.Option(help="Address of both; they tell no secrets.")] = "127.0.0.1",
    nice: Annotated[int, typer.Option(min=0, max=19, help="Step back for other processes on the same CPUs.")] = 0,
) -> None:
    """Run stages in this process; start as many as there are partitions."""
    from deploy.processes import run_worker

    settings = _ready_settings()
    step_back(nice)
    with _unusable(), traced("worker", os.environ):
        run_worker(
            settings,
            settings.kafka.bootstrap_servers,
            _stages(stage),
            health_host=health_host,
            health_port=health_port,
        )


def node() -> None:
    """Run the API and the index stages: the only owner of the embedded stores."""
    from deploy.processes import run_node

    settings = _ready_settings()
    with _unusable(), traced("node", os.environ):
        run_node(settings, settings.kafka.bootstrap_servers)


def api() -> None:
    """Run the API alone, over server stores."""
    from deploy.processes import run_api

    settings = _ready_settings()
    with _unusable(), traced("api", os.environ):
        run_api(settings, settings.kafka.bootstrap_servers)


@contextmanager
def _unusable() -> Iterator[None]:
    """What no restart mends ends the process with the status that tells the supervisor so."""
    try:
        yield
    except (ValueError, PermanentError, LookupError) as error:
        fail(str(error), status=EXIT_UNUSABLE)


def _ready_settings() -> Settings:
    settings = load_settings()
    configure_logs(settings)
    if not settings.kafka.bootstrap_servers:
        fail("AEGIS_KAFKA__BOOTSTRAP_SERVERS is not set; `aegis up` starts everything on one machine", status=2)
    return settings


def _stages(text: str) -> list[StageName]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(STAGES)):
        fail(f"no stage is called {', '.join(unknown)}; there are {', '.join(STAGES)}", status=2)
    return [stage for stage in STAGES if stage in names]
