"""The whole system as `aegis up` starts it: real broker, node and worker processes, real models, both stores."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from deploy.digest import digests
from deploy.local.system import System, started
from schemas.records import DocumentRecord
from schemas.settings import Settings
from schemas.topics import DOCUMENTS
from streams.publisher import Publisher
from tests.another_worker import another_worker
from tests.client_examples import examples, printed
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.integration

QUICK_START = Path(__file__).parents[1] / "docs/quick-start.md"
_SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Running:
    """A started system and what talks to it."""

    system: System
    settings: Settings
    publisher: Publisher
    api: httpx.Client

    @property
    def servers(self) -> str:
        return self.system.running.bootstrap_servers

    def status(self, document_id: str) -> dict[str, Any]:
        response = self.api.get(f"/api/v1/documents/{document_id}")
        return response.json() if response.is_success else {"state": "unknown", "version": -1}

    def wait(
        self, document_id: str, state: str = "indexed", *, version: int = 0, timeout: float = PATIENCE
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self.status(document_id)
            if status["state"] == state and status["version"] >= version:
                return status
            time.sleep(0.05)
        raise AssertionError(f"{document_id} is not {state}: {self.status(document_id)}")

    def search(self, query: str, **options: Any) -> list[dict[str, Any]]:
        response = self.api.post("/api/v1/search", json={"query": query, "limit": 20, **options})
        response.raise_for_status()
        hits: list[dict[str, Any]] = response.json()["hits"]
        return hits

    def texts(self, document_id: str, query: str = "anything") -> list[str]:
        return [hit["text"] for hit in self.search(query, document_ids=[document_id])]

    def raw(self, key: str, value: bytes | None) -> None:
        """Produce as any plain Kafka client does."""
        producer = Producer({"bootstrap.servers": self.servers})
        producer.produce(DOCUMENTS.name, key=key.encode(), value=value)
        producer.flush()

    def aegis(self, *arguments: str) -> Any:
        """Run the command line and parse its JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"AEGIS_DATA_DIR": str(self.settings.data_dir)},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("system")
    settings = Settings(data_dir=folder, api={"port": 0}, retry={"delays": ["5s"]})
    # On a busy machine the graph may be late by default, and searches answer without it.
    environment = {"AEGIS_RETRY__DELAYS": '["5s"]', "AEGIS_GRAPH__SEARCH_TIMEOUT": "10"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with started(settings) as system:
            system.wait_until_ready()
            yield from _talking(system, settings)


def _talking(system: System, settings: Settings) -> Iterator[Running]:
    with (
        Publisher(system.running.bootstrap_servers, settings) as publisher,
        httpx.Client(base_url=system.running.api_url, timeout=60) as api,
    ):
        yield Running(system, settings, publisher, api)


def test_a_document_is_searchable_however_it_is_published(running: Running) -> None:
    running.publisher.publish(DocumentRecord(document_id="by-sdk", text="Otters juggle pebbles in the river Spey."))
    running.publisher.flush()
    running.raw("by-kafka", b'{"document_id": "by-kafka", "text": "Kestrels hover above the motorway verge."}')
    posted = running.api.post(
        "/api/v1/documents", json={"document_id": "by-http", "text": "Badgers dig setts in chalk."}
    )
    assert posted.status_code == 202
    uploaded = running.api.post(
        "/api/v1/documents", files={"file": ("by-upload.md", b"# Moles\n\nMoles swim through loam.", "text/markdown")}
    )
    assert uploaded.status_code == 202
    for document_id, query in [
        ("by-sdk", "Which animal juggles stones?"),
        ("by-kafka", "bird hovering over a road"),
        ("by-http", "Who digs in chalk?"),
        (uploaded.json()["document_id"], "Which animal swims through loam?"),
    ]:
        running.wait(document_id)
        assert running.search(query)[0]["document_id"] == document_id


def test_an_update_replaces_and_a_tombstone_removes(running: Running) -> None:
    running.publisher.publish(DocumentRecord(document_id="news", text="The ferry leaves at nine."))
    second = running.publisher.publish(DocumentRecord(document_id="news", text="The ferry leaves at ten."))
    running.publisher.flush()
    running.wait("news", version=second.version)
    assert running.texts("news") == ["The ferry leaves at ten."]
    running.raw("news", None)
    running.wait("news", "deleted")
    assert running.texts("news") == []


def test_an_older_version_does_not_come_back(running: Running) -> None:
    running.publisher.publish(DocumentRecord(document_id="old", text="Second edition.", version=2))
    running.publisher.publish(DocumentRecord(document_id="old", text="First edition.", version=1))
    running.publisher.publish(DocumentRecord(document_id="marker", text="Published after both."))
    running.publisher.flush()
    running.wait("old", version=2)
    running.wait("marker")
    assert running.texts("old") == ["Second edition."]


def test_publishing_the_same_again_costs_nothing_and_reports_indexed(running: Running) -> None:
    text = "Quartz clocks count the vibrations of a crystal."
    first = running.publisher.publish(DocumentRecord(document_id="same", text=text))
    running.publisher.flush()
    running.wait("same", version=first.version)
    again = running.publisher.publish(DocumentRecord(document_id="same", text=text))
    running.publisher.flush()
    status = running.wait("same", version=again.version)
    assert status["stages"]["chunk"]["state"] == "unchanged"
    assert status["stages"]["embed"]["version"] == first.version
    assert running.texts("same") == [text]


def test_a_search_can_wait_for_a_version(running: Running) -> None:
    one = running.publisher.publish(DocumentRecord(document_id="fresh/one", text="Saffron is picked at dawn."))
    running.publisher.flush()
    hits = running.search("When is saffron picked?", wait_for=f"fresh/one@{one.version}", wait_timeout=30)
    assert hits[0]["document_id"] == "fresh/one"


def test_large_content_takes_the_claim_check(running: Running) -> None:
    text = "\n\n".join(f"Paragraph {number} of a long report about granite quarries." for number in range(40))
    padding = " " * 1_200_000
    running.publisher.publish(DocumentRecord(document_id="large", text=text + padding))
    running.publisher.flush()
    running.wait("large")
    assert any((running.settings.data_dir / "blobs").iterdir())
    assert running.search("granite quarries", document_ids=["large"])


def test_a_dead_letter_says_why_and_is_replayed_once_mended(running: Running) -> None:
    blob = running.settings.data_dir.resolve() / "blobs" / "late-blob"
    blob.parent.mkdir(exist_ok=True)
    uri = f"{running.settings.blob_store_url()}/late-blob"
    value = DocumentRecord(document_id="late", content_uri=uri, media_type="text/plain").model_dump_json(
        exclude_none=True
    )
    running.raw("late", value.encode())
    running.wait("late", "dead-lettered")
    (letter,) = running.aegis("dlq", "list", "--document", "late")
    assert "there is no such blob" in letter["error"]
    shown = running.aegis("dlq", "show", letter["id"])
    assert shown["value"] == value
    assert shown["headers"]["__connect.errors.topic"] == DOCUMENTS.name
    blob.write_text("The lighthouse keeper's logbook, found at last.")
    assert len(running.aegis("dlq", "replay", "--document", "late", "--dry-run")["would be replayed"]) == 1
    assert len(running.aegis("dlq", "list", "--document", "late")) == 1
    assert len(running.aegis("dlq", "replay", "--document", "late")["replayed"]) == 1
    running.wait("late")
    assert running.aegis("dlq", "list", "--document", "late") == []
    assert running.texts("late") == ["The lighthouse keeper's logbook, found at last."]


def test_the_journeys_of_the_clients_page(running: Running) -> None:
    blob = running.settings.data_dir.resolve() / "blobs" / "late-report"
    blob.parent.mkdir(exist_ok=True)
    uri = f"{running.settings.blob_store_url()}/{blob.name}"
    lost = DocumentRecord(document_id="reports/late", content_uri=uri, media_type="text/plain")
    running.raw(lost.document_id, lost.model_dump_json(exclude_none=True).encode())
    running.wait("reports/late", "dead-lettered")
    first, update, status, delete, listed, tried, replayed = examples(running.system.running.api_url)
    assert "30 days of leave" in printed(*first)  # published, awaited, searched and asked
    assert "The team lead approves leave" in printed(*update)
    assert json.loads(printed(*status))["searchable_version"] > 0
    printed(*delete)
    running.wait("handbook/leave", "deleted")
    assert running.texts("handbook/leave") == []
    assert json.loads(printed(*listed))["total"] == 1
    blob.write_text("The harbour was dredged twice.")
    assert json.loads(printed(*tried))["dry_run"]
    assert len(json.loads(printed(*replayed))["dead_letters"]) == 1
    running.wait("reports/late")
    assert running.texts("reports/late") == ["The harbour was dredged twice."]


def test_the_quick_start_happens_as_it_is_told(running: Running, tmp_path: Path) -> None:
    _, _, publish, ask, update, fail, replay, mend, delete = _SHELL_BLOCK.findall(QUICK_START.read_text())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"AEGIS_DATA_DIR": str(running.settings.data_dir), "PATH": path}

    def told(block: str) -> str:
        words = ["bash", "-e", "-c", block]
        return subprocess.run(
            words, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment, timeout=200
        ).stdout

    assert "1 indexed" in told(publish)
    assert told(ask).count("30 days of leave") >= 2
    assert "32 days of leave" in told(update)
    failed = told(fail.replace("--wait", "--wait || echo status $?"))
    assert "status 1" in failed
    assert "1 dead-lettered" in failed
    assert "the file is empty" in failed
    replayed = told(replay)
    assert "1 dead letters would be replayed." in replayed
    assert "1 dead letters replayed." in replayed
    assert "2 indexed" in told(mend)
    assert "Deleting 2 documents" in told(delete)
    running.wait("leave.md", "deleted")
    assert running.aegis("dlq", "list", "--document", "rota.md") == []


def test_a_replayed_old_dead_letter_does_not_overwrite_what_came_after(running: Running) -> None:
    running.raw("twice", b'{"document_id": "twice", "text": "   "}')
    running.wait("twice", "dead-lettered")
    newer = running.publisher.publish(DocumentRecord(document_id="twice", text="The corrected text."))
    running.publisher.flush()
    running.wait("twice", version=newer.version)
    running.aegis("dlq", "replay", "--document", "twice")
    running.publisher.publish(DocumentRecord(document_id="after-replay", text="Published after the replay."))
    running.publisher.flush()
    running.wait("after-replay")
    assert running.texts("twice") == ["The corrected text."]
    running.aegis("dlq", "drop", "--document", "twice")


def test_the_command_line_speaks_json(running: Running, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("Copper pans conduct heat well.")
    published = running.aegis("publish", str(tmp_path), "--wait")
    assert published["states"] == {"indexed": 1}
    assert running.aegis("status", "folder/note.txt")["state"] == "indexed"
    assert running.aegis("search", "Which pans conduct heat?")["hits"][0]["document_id"] == "folder/note.txt"
    assert running.aegis("topics", "verify") == []
    assert running.aegis("check") == []
    running.aegis("delete", "folder/note.txt")
    running.wait("folder/note.txt", "deleted")
    lag = {group["group"]: (group["records"], group["verdict"]) for group in running.aegis("lag")}
    assert lag["aegis-index-vectors"] == (0, "OK")
    assert set(lag) == {"aegis-chunk", "aegis-embed", "aegis-extract", "aegis-index-vectors", "aegis-index-graph"}


def test_the_smoke_test_passes(running: Running) -> None:
    seen = running.aegis("smoke", "--url", running.system.running.api_url)
    assert (seen["failed"], len(seen["seconds"])) == (None, 8)


def test_a_search_follows_a_name_from_one_document_to_another(running: Running) -> None:
    texts = {
        "play": "The Glass Orchard is a stage play written by Ottilie Brandmayer.",
        "author": "Ottilie Brandmayer grew up in Klagenfurt as a daughter of two pharmacists.",
        **{f"town/{number}": f"The daughter of a baker grew up in town number {number}." for number in range(12)},
    }
    for name, text in texts.items():
        running.publisher.publish(DocumentRecord(document_id=f"bridge/{name}", text=text))
    running.publisher.flush()
    for name in texts:
        running.wait(f"bridge/{name}")
    query = "Where did the author of The Glass Orchard grow up?"
    hits = {hit["document_id"]: hit for hit in running.search(query, limit=2, mode="auto")}
    assert set(hits) == {"bridge/play", "bridge/author"}
    assert "graph" in hits["bridge/author"]["ranks"]
    kept = running.search(query, mode="graph", document_ids=["bridge/play", "bridge/town/1"])
    assert "bridge/author" not in {hit["document_id"] for hit in kept}


def test_what_is_indexed_is_found_as_well_while_others_are_ingested_as_afterwards(running: Running) -> None:
    villages = [
        f"{first}{last}" for first in ("Brim", "Cor", "Dun", "Fell", "Gren") for last in ("ock", "ave", "ulm", "ish")
    ]
    questions = {f"village/{name}": f"Who keeps the bees of {name}?" for name in villages}
    for number, name in enumerate(villages):
        text = f"The bees of {name} are kept by beekeeper number {number}."
        running.publisher.publish(DocumentRecord(document_id=f"village/{name}", text=text))
    running.publisher.flush()
    for document_id, question in questions.items():
        running.wait(document_id)
        assert running.search(question)[0]["document_id"] == document_id
    assert [running.search(question)[0]["document_id"] for question in questions.values()] == list(questions)


def test_a_killed_node_comes_back_with_everything(running: Running) -> None:
    running.publisher.publish(DocumentRecord(document_id="survivor", text="Lichens survive in open space."))
    running.publisher.flush()
    running.wait("survivor")
    node = next(child for child in running.system.supervisor.children if child.name == "node")
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    time.sleep(1)
    running.system.wait_until_ready()
    assert running.search("What survives in space?")[0]["document_id"] == "survivor"


def test_starting_again_continues_and_two_orders_give_one_digest(tmp_path: Path) -> None:
    """Half of the corpus, a stop, the other half; against all of it in reverse with a second worker's partitions."""
    corpus = {f"doc-{number}": _text(number) for number in range(40)}
    settings = [Settings(data_dir=tmp_path / name, api={"port": 0}) for name in ("halves", "reversed")]
    names = list(corpus)
    for part in (names[:20], names[20:]):
        _ingest(settings[0], {name: corpus[name] for name in part}, names)
    _ingest(settings[1], {name: corpus[name] for name in reversed(names)}, names, second_worker=True)
    first, second = (digests(one) for one in settings)
    assert first == second
    assert first["vectors"].rows["chunk"] == len(corpus)
    assert first["graph"].rows["entity"] > 0


@contextmanager
def _second_worker(system: System, settings: Settings) -> Iterator[None]:
    """Another process of the stages that need no store; half of the partitions become its own."""
    folder, servers = settings.data_dir, system.running.bootstrap_servers
    child, port = another_worker("second", folder, servers, folder / "second.log")
    try:
        until(lambda: "embed" in _handled(port), what=child.last_words)
        yield
        assert _handled(port)["embed"] > 0, "the second worker got nothing to do"
    finally:
        child.stop()


def _handled(port: int) -> dict[str, int]:
    try:
        response = httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=2)
    except httpx.HTTPError:
        return {}
    return {stage: one["handled"] for stage, one in response.json()["stages"].items()} if response.is_success else {}


def _ingest(settings: Settings, texts: dict[str, str], names: list[str], *, second_worker: bool = False) -> None:
    with started(settings) as system, _second_worker(system, settings) if second_worker else nullcontext():
        system.wait_until_ready()
        with Publisher(system.running.bootstrap_servers, settings) as publisher:
            for name, text in texts.items():
                publisher.publish(DocumentRecord(document_id=name, text=text))
        with httpx.Client(base_url=system.running.api_url, timeout=60) as api:
            wanted = 20 if set(texts) == set(names[:20]) else 40

            def counts() -> dict[str, int]:
                found: dict[str, int] = api.get("/api/v1/documents", params={"limit": 1}).json()["counts"]
                return found

            until(lambda: counts().get("indexed", 0) >= wanted, pause=0.2, what=counts)


def _text(number: int) -> str:
    people = ("Ada Lovelace", "Charles Babbage", "Grace Hopper", "Alan Turing")
    return (
        f"Letter {number}: {people[number % 4]} wrote to {people[(number + 1) % 4]} in London about engine {number}. "
        f"The University of Cambridge kept a copy."
    )
