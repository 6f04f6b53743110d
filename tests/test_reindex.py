"""Another index while the first answers, whoever is killed on the way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from deploy.cli import app
from deploy.commands.documents import wait_for
from deploy.generations import OFFERED, in_effect
from deploy.local.system import System, started
from schemas.ids import entity_id
from schemas.records import DocumentRecord
from schemas.settings import Settings
from streams.publisher import Publisher
from tests.asking import Asking
from tests.test_embed import small_model
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

DOCUMENTS = 20
KEPT = {f"word{number}": f"doc-{number}" for number in range(3, DOCUMENTS)}
ACME, ZENITH = entity_id("ORG", "acme"), entity_id("ORG", "zenith")


def test_an_index_is_replaced_while_it_answers(tmp_path: Path) -> None:
    folder, model = tmp_path / "system", tmp_path / "model"
    model.mkdir()
    small_model(model, activation="gelu", pooling="mean_tokens")
    with running(folder) as system:
        change(system, *(DocumentRecord(document_id=f"doc-{n}", text=text_of(n)) for n in range(DOCUMENTS)))
        decide(system, "before")
        assert json.loads(said(folder, "--chunk-size", "16", "--dry-run", "--json"))["documents"] == DOCUMENTS
        assert "made with this model and chunking already" in said(folder)
        with Asking(system.running.api_url, KEPT, per_second=5) as asking:
            killed = reindex(folder, "--model", str(model), "--chunk-size", "16")
            until((folder / "vectors-g2").exists)
            assert "another `aegis reindex`" in said(folder, "--chunk-size", "32")
            killed.process.kill()
            killed.process.communicate()
            update = DocumentRecord(document_id="doc-1", text="Updated wordone now.")
            change(system, update, DocumentRecord(document_id="doc-2", operation="delete"))
            decide(system, "meanwhile")
            report = reindex(folder, "--model", str(model), "--chunk-size", "16").finished()
            change(system, DocumentRecord(document_id="doc-after", text="Afterwards wordafter came."))
        assert (asking.failed, asking.wrong) == ([], [])
        assert (report["generation"], report["failed"]) == ("g2", 0)
        until(lambda: not (folder / "vectors").exists())
        assert_whole(system, folder, generation="g2")
        assert in_effect(Settings(data_dir=folder)).embedding.model == str(model)

        process = reindex(folder, "--chunk-size", "40")
        until((folder / OFFERED).exists, pause=0.01)
        kill_node(system)
        process.finished()
        until(lambda: answers(system))
        assert_whole(system, folder, generation="g3")
        assert [decision["reason"] for decision in get(system, "/api/v1/decisions")["decisions"]] == ["meanwhile"]


def assert_whole(system: System, folder: Path, *, generation: str) -> None:
    """Everything is in that generation, and nothing is left of another."""
    expected = KEPT | {"word0": "doc-0", "wordone": "doc-1", "wordafter": "doc-after", "word1": None, "word2": None}
    assert {word: found(system, word) for word in expected} == expected
    until(lambda: {path.name for path in folder.glob("vectors*")} == {f"vectors-{generation}"})
    until(lambda: {path.name for path in folder.glob("graph*")} == {f"graph-{generation}"})
    until(lambda: topics(system) == {"aegis.documents.v1"} | {t for t in topics(system) if t.endswith(generation)})
    assert get(system, "/api/v1/decisions")["decisions"]
    assert {group["group"].removesuffix(f"-{generation}") for group in get(system, "/api/v1/lag")} == {
        f"aegis-{stage}" for stage in ("chunk", "embed", "extract", "index-vectors", "index-graph")
    }


class Command:
    """A started command line."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"AEGIS_DATA_DIR": str(folder)},
        )

    def finished(self) -> dict[str, Any]:
        """What it printed, read as JSON."""
        output, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        printed: dict[str, Any] = json.loads(output)
        return printed


def said(folder: Path, *options: str) -> str:
    """What the command says in this process, on one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEGIS_DATA_DIR", str(folder))
        return " ".join(CliRunner().invoke(app, ["reindex", *options]).output.split())


def reindex(folder: Path, *options: str) -> Command:
    return Command(folder, "reindex", *options, "--json")


def text_of(number: int) -> str:
    return f"Document {number} has word{number} in it. " + "Some filler follows here. " * 12


@contextmanager
def running(folder: Path) -> Iterator[System]:
    with started(Settings(data_dir=folder, api={"port": 0})) as system:
        system.wait_until_ready(timeout=300)
        yield system


def change(system: System, *documents: DocumentRecord) -> None:
    """Publish, and wait until all of it is in the index that answers."""
    settings = in_effect(Settings(data_dir=system.supervisor.children[0].log_file.parents[1]))
    with Publisher(system.running.bootstrap_servers, settings) as publisher:
        published = [publisher.publish(document) for document in documents]
    wait_for(system.running.bootstrap_servers, settings, published)


def decide(system: System, reason: str) -> None:
    body = {"first": ACME, "second": ZENITH, "verdict": "same", "reason": reason, "force": True}
    httpx.post(f"{system.running.api_url}/api/v1/decisions", json=body, timeout=60).raise_for_status()


def found(system: System, word: str) -> str | None:
    """The document that has the word."""
    body = {"query": word, "mode": "keyword", "limit": 1}
    response = httpx.post(f"{system.running.api_url}/api/v1/search", json=body, timeout=60)
    hits = response.raise_for_status().json()["hits"]
    return str(hits[0]["document_id"]) if hits else None


def get(system: System, path: str) -> Any:
    return httpx.get(system.running.api_url + path, timeout=60).raise_for_status().json()


def answers(system: System) -> bool:
    try:
        return httpx.get(f"{system.running.api_url}/health/ready", timeout=10).is_success
    except httpx.HTTPError:
        return False


def kill_node(system: System) -> None:
    process = next(child.process for child in system.supervisor.children if child.name == "node")
    assert process is not None
    process.send_signal(signal.SIGKILL)


def topics(system: System) -> set[str]:
    listed = AdminClient({"bootstrap.servers": system.running.bootstrap_servers}).list_topics(timeout=30).topics
    return {name for name in listed if name.startswith("aegis")}
