"""What is said of extraction: by its observer, by a worker's health port and log, by the API."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from prometheus_client import generate_latest

import deploy.model_metrics
from deploy.extraction_watch import ExtractionWatch
from deploy.local.broker import free_port
from deploy.local.supervisor import command_child
from processors.breaker import Breaker
from processors.errors import UnavailableError
from processors.extract import Found, Phase
from processors.recent import Recent
from processors.runtimes.devices import gpu_memory
from schemas import headers
from schemas.records import Chunk, StatusRecord
from schemas.settings import Kafka
from schemas.topics import SOURCES
from streams.extraction_log import ExtractionLog
from streams.topics import create_topics
from tests.api_server import serving
from tests.waiting import until


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def found(**degraded: str) -> Found:
    return Found((), (), "rules+none", degraded)


def test_counts_of_the_last_five_minutes() -> None:
    recent = Recent()
    assert recent.summary(0) == {"texts": 0, "degraded": 0, "share": None}
    recent.add(1000, texts=6, degraded=3)
    recent.add(990, texts=2, degraded=1)  # a later record of an earlier time
    assert recent.summary(1010) == {"texts": 8, "degraded": 4, "share": 0.5}
    for second in range(1000, 90_000, 7):
        recent.add(second, texts=1, degraded=0)
    assert len(recent._texts) <= 32
    assert recent.summary(89_999)["texts"] in range(40, 46)
    assert recent.summary(200_000)["texts"] == 0


def test_a_phase_is_degraded_since_then_for_that_reason_until_it_answers_again() -> None:
    clock, breaker = Clock(), Breaker(failures=1)
    watch = ExtractionWatch(clock)
    watch.chosen("three_phase", {"ner": Phase("aegis-ner-1"), "relations": Phase("llm-v1/m", breaker=breaker)})

    def relations() -> dict[str, Any]:
        phases: Any = watch.summary()["phases"]
        return dict(phases["relations"])

    watch.found([found()])
    assert watch.summary()["status"] == "ok"
    clock.now += 10
    breaker.failed()
    watch.failed("relations", UnavailableError("no server"))
    watch.found([found(), found(relations="no server"), found(), found()])
    clock.now += 5
    watch.found([found(relations="still none")])
    assert watch.summary()["status"] == "degraded"
    assert relations() == {
        "chosen": "llm-v1/m",
        "loaded": True,
        "degraded_since": "1970-01-12T13:46:50+00:00",
        "reason": "still none",
        "last_error": "no server",
        "last_error_at": "1970-01-12T13:46:50+00:00",
        "breaker": "open",
    }
    assert watch.summary()["last_5_minutes"] == {"texts": 6, "degraded": 2, "share": 0.3333}
    watch.found([found()])
    assert watch.summary()["status"] == "ok"
    assert (relations()["degraded_since"], relations()["last_error"]) == (None, "no server")


def test_a_missing_model_is_degraded_from_the_start() -> None:
    watch = ExtractionWatch()
    watch.chosen("three_phase", {"ner": Phase("spacy", missing="it is not installed")})
    assert watch.summary()["status"] == "degraded"
    assert watch.missing() == ["it is not installed"]


def status(number: int, at: float, degraded: str | None = None) -> StatusRecord:
    return StatusRecord(
        document_id=f"d-{number}",
        version=1,
        stage="extract",
        state="extracted",
        at=at,
        pipeline="rules+none" if degraded else "aegis-ner-1+none",
        degraded=degraded,
    )


def test_the_api_says_what_the_status_topic_tells() -> None:
    with serving() as stack:
        now = time.time()

        def health() -> dict[str, Any]:
            return dict(stack.http.get("/health/extraction").raise_for_status().json())

        before = health()
        assert (before["status"], before["running"], before["last_5_minutes"]["share"]) == ("ok", None, None)
        assert before["configured"]["pipeline"] == "three_phase"
        for number in range(3):
            stack.extractions.add(status(number, now - 1000 + number, "old: trouble"))
        assert health()["status"] == "ok", "that is over"
        stack.extractions.add(status(4, now - 40))
        stack.extractions.add(status(5, now - 30, "ner: the weights are damaged"))
        stack.extractions.add(status(6, now - 20, "ner: the weights are damaged"))
        after = health()
        assert (after["status"], after["reason"]) == ("degraded", "ner: the weights are damaged")
        assert after["degraded_since"] == pytest.approx(now - 30)
        assert after["last_5_minutes"] == {"texts": 3, "degraded": 2, "share": 0.6667}
        assert (after["running"], after["stage"]["workers"]) == ("rules+none", 1)


def test_without_workers_extraction_is_down() -> None:
    def nobody(stack: Any) -> None:
        stack.lag.members = 0

    def away(stack: Any) -> None:
        stack.lag.down = True

    for change, reason in ((nobody, "no worker runs"), (away, "the broker does not answer")):
        with serving(change=change) as stack:
            health = stack.http.get("/health/extraction").json()
            assert health["status"] == "down"
            assert reason in health["reason"]
            assert "secret" not in json.dumps(health)


def test_only_extracted_documents_count() -> None:
    log = ExtractionLog()
    log.add(StatusRecord(document_id="d", version=1, stage="embed", state="embedded", at=1))
    assert log.summary(2)["running"] is None


def test_gpu_memory_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deploy.model_metrics.GPU_MEMORY._name == "gpu_memory_usage_bytes"
    assert b"\ngpu_memory_usage_bytes 0.0\n" in generate_latest()

    class Cuda:
        @staticmethod
        def is_initialized() -> bool:
            return True

        @staticmethod
        def device_count() -> int:
            return 2

        @staticmethod
        def memory_reserved(number: int) -> int:
            return 1000 + number

    class Torch:
        cuda = Cuda

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert gpu_memory() == 2001


@pytest.mark.integration
def test_a_worker_tells_of_its_phases_and_whose_documents_they_are(bootstrap_servers: str, tmp_path: Path) -> None:
    """By rules, because the spaCy pipeline that is asked for is nowhere."""
    create_topics(bootstrap_servers, Kafka())
    port, log_file = free_port(), tmp_path / "extractor.log"
    environment = {
        "AEGIS_DATA_DIR": str(tmp_path),
        "AEGIS_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "AEGIS_EXTRACTION__NAMES": "spacy:nowhere",
        "AEGIS_EXTRACTION__RELATIONS": "none",
        "AEGIS_LOG_LEVEL": "debug",
    }
    command = [sys.executable, "-m", "deploy.cli", "worker", "--stage", "extract", "--health-port", str(port)]
    child = command_child("extractor", command, log_file, environment)
    child.start()
    try:
        chunk = Chunk(
            document_id="health",
            version=1,
            chunk_index=0,
            chunk_count=1,
            text="Dr. Strange lives in Lisbon.",
            start=0,
            end=28,
            content_hash="h",
        )
        producer = Producer({"bootstrap.servers": bootstrap_servers})
        for name in ("request-1", "request-2"):
            producer.produce(
                SOURCES["extract"].name,
                key=b"health",
                value=chunk.model_dump_json().encode(),
                headers={headers.CORRELATION_ID: name.encode()},
            )
        producer.flush()
        health = _health(port, texts=2)
    finally:
        child.stop()
    assert (health["status"], health["pipeline"]) == ("degraded", "three_phase")
    assert health["phases"]["ner"]["loaded"] is False
    assert "nowhere" in health["phases"]["ner"]["reason"]
    assert health["last_5_minutes"]["share"] == 1.0
    lines = [json.loads(line) for line in log_file.read_text().splitlines() if line.startswith("{")]
    seen: dict[str, set[str]] = {}
    for line in lines:
        if line["event"] in ("extraction-phase", "extraction-degraded") and line.get("phase") != "load":
            seen.setdefault(line["phase"], set()).update(line["correlation_ids"])
            assert line["stage"] == "extract"
    assert {phase for phase, ids in seen.items() if ids >= {"request-1", "request-2"}} == {"ner", "dedup"}


def _health(port: int, *, texts: int) -> dict[str, Any]:
    health: dict[str, Any] = {}

    def has_extracted() -> bool:
        with suppress(httpx.HTTPError):
            health.update(httpx.get(f"http://127.0.0.1:{port}/health/extraction", timeout=5).json())
        return int(health.get("last_5_minutes", {}).get("texts", 0)) >= texts

    until(has_extracted, what=lambda: health)
    return health
