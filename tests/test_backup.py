"""A data folder as a file and back; a lost store filled again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.backup import back_up, restore
from deploy.local.system import System, started
from deploy.rebuilding import rebuild
from deploy.running import NotRunningError
from schemas.records import DocumentRecord
from schemas.settings import Settings
from streams.publisher import Publisher
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_a_system_is_restored_elsewhere_and_a_lost_store_filled_again(tmp_path: Path) -> None:
    folder, restored, file = tmp_path / "system", tmp_path / "restored", tmp_path / "backup"
    with running(folder) as (system, publisher):
        for number in range(3):
            publisher.publish(DocumentRecord(document_id=f"doc-{number}", text=text_of(number)))
        publisher.flush()
        wait_for(system, {f"doc-{number}" for number in range(3)})
        with pytest.raises(NotRunningError, match="already running"):
            back_up(Settings(data_dir=folder), file)
    written = back_up(Settings(data_dir=folder), file)
    assert restore(Settings(data_dir=restored), file) == written
    with pytest.raises(ValueError, match="is not empty"):
        restore(Settings(data_dir=restored), file)
    rebuild(Settings(data_dir=restored), "vectors", say=lambda _: None)
    assert not (restored / "vectors").exists()
    assert (restored / "graph").exists()
    with running(restored) as (system, publisher):
        publisher.publish(DocumentRecord(document_id="doc-3", text=text_of(3)))
        publisher.flush()
        wait_for(system, {"doc-3"})
        expected = [f"doc-{number}" for number in range(4)]
        until(
            lambda: [found(system, f"word{number}")["document_id"] for number in range(4)] == expected,
            what=lambda: state_of(system),
        )


def test_a_damaged_backup_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "system"
    (folder / "broker").mkdir(parents=True)
    (folder / "broker" / "segment").write_bytes(os.urandom(100_000))
    back_up(Settings(data_dir=folder), tmp_path / "backup")
    content = bytearray((tmp_path / "backup").read_bytes())
    content[50_000] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    (tmp_path / "cut").write_bytes(content[:50_000])
    for name in ("damaged", "cut"):
        with pytest.raises(ValueError, match=r"cannot be restored|not what they were|no manifest"):
            restore(Settings(data_dir=tmp_path / "restored"), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "cut", "damaged", "system"]


def text_of(number: int) -> str:
    return f"Document {number} has word{number} in it. " + "Some filler follows here. " * 12


@contextmanager
def running(folder: Path) -> Iterator[tuple[System, Publisher]]:
    settings = Settings(data_dir=folder, api={"port": 0})
    with started(settings) as system:
        system.wait_until_ready()
        with Publisher(system.running.bootstrap_servers, settings) as publisher:
            yield system, publisher


def found(system: System, query: str) -> dict[str, Any]:
    body = {"query": query, "mode": "keyword", "limit": 1}
    response = httpx.post(f"{system.running.api_url}/api/v1/search", json=body, timeout=60)
    response.raise_for_status()
    return dict((response.json()["hits"] or [{"document_id": None, "text": ""}])[0])


def wait_for(system: System, document_ids: set[str]) -> None:
    def is_indexed(document_id: str) -> bool:
        response = httpx.get(f"{system.running.api_url}/api/v1/documents/{document_id}", timeout=60)
        return response.is_success and response.json()["state"] == "indexed"

    for document_id in sorted(document_ids):
        until(partial(is_indexed, document_id), what=lambda: state_of(system))


def state_of(system: System) -> str:
    """What an operator would look at, when a document is not found."""
    with httpx.Client(base_url=system.running.api_url, timeout=60) as api:
        seen = [api.get(path).text for path in ("/api/v1/documents", "/api/v1/lag", "/api/v1/dead-letters", "/health")]
    return "\n".join([*seen, *(child.last_words() for child in system.supervisor.children)])
