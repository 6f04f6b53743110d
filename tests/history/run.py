"""A history through the system as `aegis up` runs it, and what is left of it ingested afresh; both compared."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from confluent_kafka import Producer

from deploy.digest import Digest, digests
from deploy.local.system import System, started
from deploy.stores import open_graph_store, open_vectors
from schemas.records import DocumentRecord
from schemas.settings import Settings, settings_from_environment
from schemas.topics import DOCUMENTS
from streams.dead_letters import DeadLetters
from streams.kafka import producer_configuration
from streams.lag import LagMeter
from streams.publisher import Publisher
from tests.graph_stores import driver_of_tests
from tests.history.operations import Kill, Operation, Publish, left_of
from tests.neo4j_server import DATABASE, PASSWORD, USER, shared_server

_LATE_VERSION = 1
_ENVIRONMENT = {
    "AEGIS_CHUNKING__MAX_TOKENS": "48",  # several chunks a document
    "AEGIS_EMBEDDING__THREADS": "1",
    "AEGIS_KAFKA__SESSION_TIMEOUT": "6",
    "AEGIS_LOCAL__RESTART_BACKOFF_MAX": "1",
}


@dataclass
class Verdict:
    """What the history ended with, beside a fresh ingest of what is left of it."""

    graph: str
    operations: int
    kills: int
    documents: int
    lag: int = 0
    dead_letters: int = 0
    staged: int = 0
    orphans: int = 0
    differing_stores: list[str] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    history_seconds: float = 0.0
    fresh_seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left but what a fresh ingest makes."""
        broken = (self.lag, self.dead_letters, self.staged, self.orphans, self.differing_stores)
        return not any(broken) and self.rows["graph"]["document"] == self.documents


def run_history(history: Sequence[Operation], *, graph: str, pace: float) -> Verdict:
    """Run it on fresh stores, ``pace`` operations a second; ``graph`` is ladybug or neo4j."""
    final = left_of(history)
    kills = sum(isinstance(one, Kill) for one in history)
    verdict = Verdict(graph, operations=len(history) - kills, kills=kills, documents=len(final))
    afresh = [Publish(document_id, text) for document_id, text in sorted(final.items(), reverse=True)]
    with _environment(_ENVIRONMENT | (_neo4j_environment() if graph == "neo4j" else {})):
        begun = time.monotonic()
        lived = _ingested(history, verdict, pace=pace)
        verdict.history_seconds = round(time.monotonic() - begun, 1)
        begun = time.monotonic()
        fresh = _ingested(afresh, verdict, pace=1000)
        verdict.fresh_seconds = round(time.monotonic() - begun, 1)
    verdict.differing_stores = [name for name in lived if lived[name] != fresh[name]]
    verdict.rows = {name: one.rows for name, one in lived.items()}
    return verdict


def _ingested(history: Sequence[Operation], verdict: Verdict, *, pace: float) -> dict[str, Digest]:
    """Digests of both stores after the history; what is amiss in them is added to the verdict."""
    with tempfile.TemporaryDirectory(prefix="aegis-history-", ignore_cleanup_errors=True) as folder:
        settings = settings_from_environment(data_dir=Path(folder), api={"port": 0})
        _empty_server(settings)
        with started(settings) as system:
            system.wait_until_ready()
            _replay(history, system, settings, pace=pace)
            servers = system.running.bootstrap_servers
            verdict.lag += LagMeter(servers).wait_until_read(timeout=300)
            verdict.dead_letters += len(DeadLetters(servers).find())
        _add_leftovers(settings, verdict)
        return digests(settings)


def _replay(history: Sequence[Operation], system: System, settings: Settings, *, pace: float) -> None:
    servers = system.running.bootstrap_servers
    raw = Producer(producer_configuration(servers))
    with Publisher(servers, settings) as publisher:
        for operation in history:
            if isinstance(operation, Kill):
                _kill(system, operation)
            elif isinstance(operation, Publish):
                version = _LATE_VERSION if operation.is_late else None
                publisher.publish(
                    DocumentRecord(document_id=operation.document_id, text=operation.text, version=version)
                )
            elif operation.is_raw:
                publisher.flush()  # another producer's record must not overtake
                raw.produce(DOCUMENTS.name, key=operation.document_id.encode(), value=None)
                raw.flush()
            else:
                publisher.delete(operation.document_id)
            time.sleep(1 / pace)


def _kill(system: System, kill: Kill) -> None:
    """Kill the process, waiting until it runs if it was killed a moment ago."""
    child = next(child for child in system.supervisor.children if child.name == kill.process)
    while child.process is None or child.process.poll() is not None:
        time.sleep(0.05)
    os.kill(child.process.pid, signal.SIGKILL)


def _add_leftovers(settings: Settings, verdict: Verdict) -> None:
    vectors = open_vectors(settings).store
    verdict.staged += vectors.staged()
    vectors.close()
    graph = open_graph_store(settings)
    verdict.orphans += graph.orphans()
    graph.close()


def _neo4j_environment() -> dict[str, str]:
    return {
        "AEGIS_GRAPH__URL": shared_server().url,
        "AEGIS_GRAPH__USER": USER,
        "AEGIS_GRAPH__PASSWORD": PASSWORD,
        "AEGIS_GRAPH__DATABASE": DATABASE,
    }


def _empty_server(settings: Settings) -> None:
    if settings.graph.url:
        with driver_of_tests() as driver:
            driver.execute_query("MATCH (n) WHERE NOT n:Format DETACH DELETE n", database_=DATABASE)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For this process and for those that it starts."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def as_json(verdict: Verdict) -> dict[str, object]:
    """The verdict as the report holds it."""
    return asdict(verdict) | {"is_clean": verdict.is_clean}
