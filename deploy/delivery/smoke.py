"""The shortest proof that a running system works: a document of its own through every stage, found, and gone again."""

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from api.client import Aegis, AegisError


class SmokeError(RuntimeError):
    """An answer is not what it should be."""


@dataclass
class Smoke:
    """Seconds of each step that passed, and the one that failed, after which nothing was tried."""

    url: str
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str | None = None
    problem: str | None = None

    def require(self) -> None:
        """Raise what went wrong, if anything did.

        Raises:
            SmokeError: A step failed.
        """
        if self.failed:
            raise SmokeError(f"{self.url}: {self.failed}: {self.problem}")


def smoke(url: str, *, key: str | None = None, within: float = 60.0) -> Smoke:
    """Publish, wait, search, ask, delete and look at health and metrics; each step has ``within`` seconds.

    The document is removed whatever fails. ``key`` reads and writes, and belongs to no tenant.
    """
    seen = Smoke(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with (
        Aegis(url, key, timeout=within, patience=within) as aegis,
        httpx.Client(base_url=url, headers=headers, timeout=within) as http,
    ):
        one = _Document(aegis, http, within)
        steps = (one.ready, one.publish, one.searchable, one.search, one.ask, one.delete, one.gone, one.metrics)
        for step in steps:
            begun = time.monotonic()
            try:
                step()
            except (AegisError, SmokeError, httpx.HTTPError) as error:
                seen.failed, seen.problem = step.__name__, str(error) or type(error).__name__
                one.clean_up()
                break
            seen.seconds[step.__name__] = round(time.monotonic() - begun, 3)
    return seen


class _Document:
    """What is published, and what is asked of it."""

    def __init__(self, aegis: Aegis, http: httpx.Client, within: float) -> None:
        self._aegis = aegis
        self._http = http
        self._within = within
        self._id = f"aegis-smoke/{uuid.uuid4()}"
        self._word = f"quill{uuid.uuid4().hex[:10]}"
        self._question = f"What does the smoke test call {self._word}?"
        self._version = 0

    def ready(self) -> None:
        self._get("/health/ready")

    def publish(self) -> None:
        text = f"The smoke test calls its lantern {self._word}."
        self._version = self._aegis.publish(text, document_id=self._id, title="Smoke test")["version"]

    def searchable(self) -> None:
        self._aegis.wait_until_searchable(self._id, self._version, within=self._within)

    def search(self) -> None:
        found = [hit["document_id"] for hit in self._aegis.search(self._question)["hits"]]
        if self._id not in found:
            raise SmokeError(f"{self._id} is searchable, but not among the hits: {found}")

    def ask(self) -> None:
        answer = self._aegis.ask(self._question)
        if self._id not in {source["document_id"] for source in answer["sources"]}:
            raise SmokeError(f"{self._id} is not among the sources of the answer, which is {answer['outcome']!r}")

    def delete(self) -> None:
        self._aegis.delete(self._id)

    def gone(self) -> None:
        deadline = time.monotonic() + self._within
        while self._aegis.search(self._question, document_ids=[self._id])["hits"]:
            if time.monotonic() > deadline:
                raise SmokeError(f"{self._id} was deleted {self._within:g} s ago, and is still found")
            time.sleep(0.1)

    def metrics(self) -> None:
        if "aegis_http_request_duration_seconds_count" not in self._get("/metrics"):
            raise SmokeError("/metrics does not tell of requests")

    def clean_up(self) -> None:
        """Not to leave the document behind, if it was published; nobody waits for it."""
        if self._version:
            with suppress(AegisError):
                self._aegis.delete(self._id)

    def _get(self, path: str) -> str:
        response = self._http.get(path)
        if response.is_error:
            raise SmokeError(f"{path} answers {response.status_code}: {response.text[:500]}")
        return response.text
