"""The whole system with its traces exported to a collector, and one document's way through it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.local.system import System, started
from schemas.settings import Settings
from tests.otlp_collector import Collector, collecting
from tests.waiting import until

TEXT = (
    "Ada Lovelace wrote to Charles Babbage in London about the Analytical Engine.\n\n"
    "Grace Hopper of Yale University found the moth in the relay.\n\n"
) * 12


@dataclass
class Traced:
    system: System
    settings: Settings
    collector: Collector
    api: httpx.Client

    def publish(self, document_id: str, traceparent: str, **content: str) -> None:
        body = {"document_id": document_id, **content}
        self.api.post("/api/v1/documents", json=body, headers={"traceparent": traceparent}).raise_for_status()

    def wait(self, document_id: str, state: str = "indexed") -> None:
        until(lambda: self.state_of(document_id) == state, what=lambda: (document_id, self.state_of(document_id)))

    def state_of(self, document_id: str) -> str | None:
        response = self.api.get(f"/api/v1/documents/{document_id}")
        return response.json()["state"] if response.is_success else None

    def search(self, query: str, traceparent: str) -> None:
        headers = {"traceparent": traceparent, "X-Request-ID": "the-search"}
        self.api.post("/api/v1/search", json={"query": query}, headers=headers).raise_for_status()


@contextmanager
def traced_system(folder: Path) -> Iterator[Traced]:
    with collecting() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        os.environ.update(variables)
        settings = Settings(data_dir=folder, api={"port": 0}, local={"worker_nice": 0, "extractor_nice": 0})
        try:
            with started(settings) as system:
                system.wait_until_ready()
                with httpx.Client(base_url=system.running.api_url, timeout=60) as api:
                    yield Traced(system, settings, collector, api)
        finally:
            for name in variables:
                del os.environ[name]


def traceparent(number: int) -> tuple[str, str]:
    """A trace id, and a header in which a span of it is the parent."""
    trace_id = f"{number:032x}"
    return trace_id, f"00-{trace_id}-{number:016x}-01"
