"""A real Prometheus scrapes the whole system behind its keys: every picture shows something, and alerts fire."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from confluent_kafka import Producer

from api.access.access import Access
from api.access.keys import NewKey
from api.access.principals import TierName
from deploy import dashboards
from deploy.local.system import System, started
from schemas.settings import Settings
from schemas.topics import DOCUMENTS
from tests.ollama_server import ollama_server
from tests.prometheus_server import Prometheus, scraping
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]  # Prometheus may have to be installed

_EMPTY = {"Extraction does without": "no phase of extraction failed"}
_BACKLOG = "By partition"  # shows partitions that wait
_until = partial(until, pause=2.0)  # Prometheus looks no more often
_LAG, _LETTERS = ("AegisLagHigh", "aegis-extract"), ("AegisDeadLetters", "chunk")


@pytest.fixture(autouse=True)
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A language model with a price and a budget, for the pictures of them."""
    with ollama_server(chat=lambda turns: "The ferry leaves at nine [1].") as server:
        model = {"name": "paid", "url": server.url, "protocol": "ollama", "tasks": ["answers"], "output_price": 1}
        monkeypatch.setenv("AEGIS_LLM__MODELS", json.dumps([{**model, "budget": {"daily": 5}}]))
        yield


def test_pictures_and_alerts_of_a_real_system(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "system", api={"port": 0})
    operator, visitor, scraper = (
        _key(settings, "operator", "enterprise", "read", "write"),
        _key(settings, "visitor", "free", "read"),
        _key(settings, "prometheus", "pro", "read"),
    )
    with started(settings) as system:
        system.wait_until_ready(timeout=300)
        with _client(system, operator) as http, scraping(tmp_path, _targets(system), key=scraper) as prometheus:
            _until(lambda: len(prometheus.query("up == 1")) == 3)
            _publish(http, "ferry", "The ferry to Harwich leaves at nine, says Ada Lovelace of Bell Labs.")
            _until(lambda: _is_indexed(http, "ferry"))
            _ask(http)
            with _client(system, visitor) as hasty:
                assert 429 in {hasty.get("/api/v1/documents").status_code for _ in range(12)}
            _until(lambda: _empty_pictures(prometheus) <= {*_EMPTY, _BACKLOG}, what=lambda: _empty_pictures(prometheus))
            assert _LETTERS not in prometheus.alerts(since="1h")
            _until(lambda: _LAG not in prometheus.alerts(since="3s"))
            with _held(system, "extractor"):
                _publish(http, "late", "Nobody reads who is named in here: Grace Hopper.")
                _until(lambda: _empty_pictures(prometheus) == _EMPTY.keys(), what=lambda: _empty_pictures(prometheus))
                _poison(system)
                _until(lambda: _LAG in prometheus.alerts(since="3s"))
            _until(lambda: _LETTERS in prometheus.alerts(since="1h"))
            _until(lambda: _LAG not in prometheus.alerts(since="3s"))


def _key(settings: Settings, name: str, tier: TierName, *scopes: str) -> str:
    return (
        Access(settings)
        .keys.create(NewKey.model_validate({"name": name, "tier": tier, "scopes": scopes}))[1]
        .get_secret_value()
    )


def _client(system: System, key: str) -> httpx.Client:
    return httpx.Client(base_url=system.running.api_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def _targets(system: System) -> dict[str, list[str]]:
    workers = [urlsplit(url).netloc for url in system.health_urls.values()]
    return {"aegis-api": [urlsplit(system.running.api_url).netloc], "aegis-worker": workers}


def _publish(http: httpx.Client, document_id: str, text: str) -> None:
    http.post("/api/v1/documents", json={"document_id": document_id, "text": text}).raise_for_status()


def _poison(system: System) -> None:
    producer = Producer({"bootstrap.servers": system.running.bootstrap_servers})
    producer.produce(DOCUMENTS.name, key=b"poison", value=b"\x00 no document")
    producer.flush()


def _ask(http: httpx.Client) -> None:
    """A search that is answered, one that waits in vain, and a question for the language model."""
    http.post("/api/v1/search", json={"query": "When does the ferry leave?"}).raise_for_status()
    vain = http.post("/api/v1/search", json={"query": "q", "wait_for": "unknown@1", "wait_timeout": 0.1})
    assert vain.status_code == 504
    answer = http.post("/api/v1/chat/", json={"question": "When does the ferry to Harwich leave?"}).raise_for_status()
    assert answer.json()["outcome"] == "generated"


def _is_indexed(http: httpx.Client, document_id: str) -> bool:
    response = http.get(f"/api/v1/documents/{document_id}")
    return response.is_success and response.json()["state"] == "indexed"


def _empty_pictures(prometheus: Prometheus) -> set[str]:
    return {
        panel.title
        for _, panels in dashboards.DASHBOARDS.values()
        for panel in panels
        for query, _ in panel.queries
        if not prometheus.query(query.replace("$__rate_interval", "10m"))
    }


@contextmanager
def _held(system: System, name: str) -> Iterator[None]:
    """One process of the system does nothing meanwhile."""
    (pid,) = [child.process.pid for child in system.supervisor.children if child.name == name and child.process]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
