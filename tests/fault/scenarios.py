"""The scenarios: each publishes documents, does harm meanwhile, and says what has to be in the stores at the end."""

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Producer

from schemas.records import STAGES, DocumentRecord, StageName
from schemas.topics import DOCUMENTS
from streams.kafka import producer_configuration
from streams.publisher import Publisher
from streams.status import StatusView
from tests.fault.cluster import Cluster
from tests.fault.faulty_worker import FAILED, GRAPH_REFUSING, MARKER, REFUSED, REFUSING, TRANSIENT

_PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Jay Kreps", "Margaret Hamilton", "Linus Torvalds")
_PLACES = ("Bletchley Park", "Bell Labs", "CERN in Geneva", "New York City", "ETH Zurich", "Mountain View")


@dataclass
class Expected:
    """What must be true at the end: a document's text, or None where it must be in neither store."""

    texts: dict[str, str | None] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    traces: set[str] = field(default_factory=set)  # flags that the faulty workers raise once they have failed
    restarts: int = 0  # processes that must have been started again, or the harm was none


@dataclass(frozen=True)
class Load:
    """``documents`` to publish; ``pace`` documents a second, so that faults hit in mid-load."""

    documents: int
    pace: float


Scenario = Callable[[Cluster, Publisher, Load], Expected]


def text_of(number: int, version: int) -> str:
    """A short text with entities, different for each document and version."""
    chance = random.Random(number * 1000 + version)
    first, second = chance.sample(_PEOPLE, 2)
    return (
        f"Report {number} revision {version}: In {1900 + number % 120}, {first} met {second} at "
        f"{chance.choice(_PLACES)}. They spoke about topic {chance.randrange(10_000)} of the Apollo Programme."
    )


def kill_every_stage(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """kill -9 of each stage's process in mid-load, ten times in turn."""
    return _ended_in_turn(cluster, publisher, load, 10, signal.SIGKILL)


def terminate_every_stage(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """SIGTERM to each stage's process in mid-load."""
    return _ended_in_turn(cluster, publisher, load, 5, signal.SIGTERM)


def broker_restart(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """The broker stops for 15 seconds in mid-load."""

    def harm() -> None:
        cluster.broker.stop()
        time.sleep(15)
        cluster.broker.spawn()

    return _while_publishing(cluster, publisher, load, harm)


def second_worker(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """A second worker joins three stages and leaves, once politely and once killed."""
    stages: list[StageName] = ["chunk", "embed", "extract"]

    def harm() -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with cluster.another_worker(stages, number=number):
                time.sleep(3)

    return _while_publishing(cluster, publisher, load, harm)


def store_refuses(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """Both stores refuse writes for 20 seconds."""

    def harm() -> None:
        flag = cluster.flags / REFUSING
        flag.touch()
        time.sleep(20)
        flag.unlink()

    expected = _while_publishing(cluster, publisher, load, harm)
    expected.traces.add(REFUSED)
    return expected


def graph_refuses(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """The graph refuses writes for as long as it takes until every document is searchable without it."""
    flag = cluster.flags / GRAPH_REFUSING
    flag.touch()
    expected = Expected(traces={REFUSED})
    published = []
    for number in range(load.documents):
        expected.texts[f"doc-{number}"] = text_of(number, 1)
        published.append(publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text_of(number, 1))))
    publisher.flush()
    view = StatusView(cluster.servers, max_documents=load.documents + 1000)
    view.start()
    if not all(view.wait_until_searchable(one.document_id, one.version, timeout=300) for one in published):
        raise TimeoutError("vectors waited for the graph")
    if view.counts().get("indexed", 0):
        raise AssertionError("the graph was to refuse, but has indexed")
    view.stop()
    flag.unlink()
    return expected


def poison(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """Two records in a hundred cannot be processed."""
    expected = Expected()
    raw = Producer(producer_configuration(cluster.servers))
    bad: tuple[tuple[bytes, bytes], ...] = (
        (b"bad-json", b'{"document_id": "bad-json", "text": '),
        (b"bad-field", b'{"document_id": "bad-field", "text": "x", "colour": "red"}'),
        (b"bad-key", b'{"document_id": "another", "text": "x"}'),
        (
            b"bad-pdf",
            b'{"document_id": "bad-pdf", "content_base64": "JVBERi0xLjQKJcTl", "media_type": "application/pdf"}',
        ),
        (b"bad-empty", b'{"document_id": "bad-empty", "text": " \\n "}'),
    )
    for number in range(load.documents):
        expected.texts[f"doc-{number}"] = text_of(number, 1)
        publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text_of(number, 1)))
        if number % 50 == 25:
            key, value = bad[number // 50 % len(bad)]
            document_id = f"{key.decode()}-{number}"
            raw.produce(DOCUMENTS.name, key=document_id.encode(), value=value.replace(key, document_id.encode()))
            raw.poll(0)
            expected.dead.add(document_id)
            expected.texts[document_id] = None
    raw.flush()
    publisher.flush()
    return expected


def duplicate_delivery(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """Every stage reads its whole topic a second time."""
    expected = _while_publishing(cluster, publisher, load, lambda: None)
    for number in range(0, load.documents, 10):
        publisher.delete(f"doc-{number}")
        expected.texts[f"doc-{number}"] = None
    publisher.flush()
    if cluster.wait_for_no_lag(timeout=300):
        raise TimeoutError("the first delivery is not done")
    cluster.stop_workers()
    cluster.rewind()
    cluster.restart_workers()
    return expected


def delete_against_retry(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """Documents are deleted while their chunks wait in a retry topic."""
    (cluster.flags / TRANSIENT).touch()
    expected = Expected(traces={FAILED})
    for number in range(load.documents):
        shaky = number % 4 == 0
        text = text_of(number, 1) + (f" {MARKER}." if shaky else "")
        publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text))
        expected.texts[f"doc-{number}"] = None if shaky else text
    publisher.flush()
    time.sleep(3)
    for number in range(0, load.documents, 4):
        publisher.delete(f"doc-{number}")
    publisher.flush()
    time.sleep(1)
    (cluster.flags / TRANSIENT).unlink()
    return expected


def update_against_update(cluster: Cluster, publisher: Publisher, load: Load) -> Expected:
    """Old revisions arrive after newer ones: from a retry topic, out of order, and with equal versions."""
    (cluster.flags / TRANSIENT).touch()
    expected = Expected(traces={FAILED})

    def put(number: int, text: str, version: int | None = None) -> None:
        publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text, version=version))

    for number in range(load.documents):
        old, new = text_of(number, 1), text_of(number, 2)
        match number % 4:
            case 0:  # the old one waits in a retry topic while the new one passes
                put(number, f"{old} {MARKER}.")
                put(number, new)
            case 1:  # the newer version is published first
                put(number, new, version=2)
                put(number, old, version=1)
            case 2:  # equal versions: the later record counts
                put(number, old, version=7)
                put(number, new, version=7)
            case _:  # many quick updates, the last of them counts
                for version in range(3, 7):
                    put(number, text_of(number, version))
                put(number, new)
        expected.texts[f"doc-{number}"] = new
    publisher.flush()
    time.sleep(3)
    (cluster.flags / TRANSIENT).unlink()
    return expected


SCENARIOS: dict[str, Scenario] = {
    "kill -9 of each stage": kill_every_stage,
    "SIGTERM to each stage": terminate_every_stage,
    "broker stops for 15 s": broker_restart,
    "second worker joins and leaves": second_worker,
    "stores refuse writes for 20 s": store_refuses,
    "graph refuses, vectors go on": graph_refuses,
    "2 % poison": poison,
    "whole topics delivered twice": duplicate_delivery,
    "delete against a retry": delete_against_retry,
    "update against an update": update_against_update,
}


def _while_publishing(cluster: Cluster, publisher: Publisher, load: Load, harm: Callable[[], None]) -> Expected:
    """Publish every document twice (an update follows later) while ``harm`` is done."""
    failures: list[BaseException] = []

    def harmed() -> None:
        try:
            harm()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=harmed)
    thread.start()
    expected = Expected()
    for version in (1, 2):
        for number in range(load.documents):
            if version == 2 and number % 3:
                continue
            text = text_of(number, version)
            publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text))
            expected.texts[f"doc-{number}"] = text
            time.sleep(1 / load.pace)
    thread.join()
    publisher.flush(timeout=120)
    if failures:
        raise failures[0]
    return expected


def _ended_in_turn(cluster: Cluster, publisher: Publisher, load: Load, times: int, number: int) -> Expected:
    """Publish while the stages' processes are sent a signal in turn."""

    def harm() -> None:
        for turn in range(times):
            time.sleep(max(1.0, load.documents / load.pace / times))
            cluster.kill(STAGES[turn % len(STAGES)], number)

    expected = _while_publishing(cluster, publisher, load, harm)
    expected.restarts = times
    return expected
