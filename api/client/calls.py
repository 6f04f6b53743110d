"""The calls: a method per route that programs need."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from api.client.errors import NotInTimeError, NotSearchableError, RefusedError, UnreachableError
from api.client.shapes import (
    Accepted,
    Answer,
    DeadLetterList,
    Entity,
    GroupLag,
    Removed,
    Resolved,
    SearchResponse,
    Status,
)

_BUSY = (429, 503)
_BACK_OFF = wait_random_exponential(multiplier=0.5, max=8)
_POLL_SECONDS = (0.1, 1.0)


class Aegis:
    """An API at ``base_url``; ``key`` is sent as `Authorization: Bearer`.

    Args:
        base_url: Such as `http://127.0.0.1:8321`.
        key: Not needed on the machine that the API runs on.
        timeout: Seconds that one request may take.
        patience: Seconds over which a request is repeated that was refused with 429 or 503, as `Retry-After` says; 0
            leaves that to the caller.

    Raises:
        AegisError: From every call; `api.client.errors` has the tree.
    """

    def __init__(self, base_url: str, key: str | None = None, *, timeout: float = 60.0, patience: float = 60.0) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout)
        self._retrying = Retrying(
            retry=retry_if_exception(_is_busy), wait=_pause, stop=stop_before_delay(patience), reraise=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def publish(self, text: str, *, document_id: str | None = None, **fields: Any) -> Accepted:
        """Publish a text; ``fields`` are `title`, `source`, `media_type`, `metadata`, `version`."""
        return cast("Accepted", self._post("/api/v1/documents", {"document_id": document_id, "text": text, **fields}))

    def publish_file(self, path: Path, *, document_id: str | None = None, **fields: Any) -> Accepted:
        """Upload a file, under its name where no id is given; ``fields`` as for a text."""
        form = {"document_id": document_id, **fields, "metadata": _json_or_none(fields.get("metadata"))}
        return cast(
            "Accepted",
            self._call(
                "POST",
                "/api/v1/documents",
                files={"file": (path.name, path.read_bytes())},
                data={name: str(value) for name, value in form.items() if value is not None},
            ),
        )

    def delete(self, document_id: str) -> Removed:
        """Remove a document from both stores."""
        return cast("Removed", self._call("DELETE", _address(document_id)))

    def status(self, document_id: str) -> Status:
        """Where a document is; 404 as long as no stage has reported it."""
        return cast("Status", self._call("GET", _address(document_id)))

    def wait_until_searchable(self, document_id: str, version: int = 0, *, within: float = 60.0) -> Status:
        """Wait for a version, or a newer one, to answer searches; ``version`` is what publishing returned.

        Raises:
            NotSearchableError: It is dead-lettered or deleted.
            NotInTimeError: It takes longer than ``within`` seconds.
        """
        deadline, pause = time.monotonic() + within, _POLL_SECONDS[0]
        while True:
            status = self._known(document_id)
            if status is not None and _answers(status, version):
                return status
            if time.monotonic() + pause > deadline:
                state = "unknown" if status is None else status["state"]
                raise NotInTimeError(f"{document_id!r} is {state} after {within:.0f} s, and not searchable")
            time.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS[1])

    def search(self, query: str, **options: Any) -> SearchResponse:
        """The best chunks; ``options`` are the fields of `POST /api/v1/search`, such as `limit` and `filter`."""
        return cast("SearchResponse", self._post("/api/v1/search", {"query": query, **options}))

    def ask(self, question: str, **options: Any) -> Answer:
        """An answer with its sources; ``options`` are the fields of `POST /api/v1/chat/`."""
        return cast("Answer", self._post("/api/v1/chat/", {"question": question, **options}))

    def ask_streamed(self, question: str, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer as it comes, as names and bodies of events; `final_answer` is the last one.

        Closing the iterator stops the work.
        """
        body = {"question": question, **options}
        with _reached(), self._http.stream("POST", "/api/v1/chat/stream", json=body) as response:
            if response.is_error:
                response.read()
                raise RefusedError.of(response)
            for name, event in _events(response.iter_lines()):
                if name == "error":
                    raise RefusedError(event["status"], event)
                yield name, event

    def entities(self, name: str) -> list[Entity]:
        """The entities of a name, in any spelling."""
        return cast("list[Entity]", self._call("GET", "/api/v1/entities", params={"name": name})["entities"])

    def lag(self) -> list[GroupLag]:
        """How far every stage is behind."""
        return cast("list[GroupLag]", self._call("GET", "/api/v1/lag"))

    def dead_letters(self, **conditions: Any) -> DeadLetterList:
        """Unresolved dead letters; ``conditions`` are the parameters of `GET /api/v1/dlq`."""
        return cast("DeadLetterList", self._call("GET", "/api/v1/dlq", params=conditions))

    def replay(self, *, ids: Sequence[str] = (), dry_run: bool = False, **conditions: Any) -> Resolved:
        """Send dead letters back to the stage they failed in; without a condition, say `every=True`."""
        body = {"ids": list(ids), "dry_run": dry_run, **conditions}
        return cast("Resolved", self._post("/api/v1/dlq/replay", body))

    def _known(self, document_id: str) -> Status | None:
        try:
            return self.status(document_id)
        except RefusedError as error:
            if error.kind == "not-found":
                return None
            raise

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json={name: value for name, value in body.items() if value is not None})

    def _call(self, method: str, path: str, **request: Any) -> Any:
        return self._retrying(self._once, method, path, **request)

    def _once(self, method: str, path: str, **request: Any) -> Any:
        with _reached():
            response = self._http.request(method, path, **request)
        if response.is_error:
            raise RefusedError.of(response)
        return response.json()


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise UnreachableError(f"the API does not answer: {error or type(error).__name__}") from error


def _address(document_id: str) -> str:
    return f"/api/v1/documents/{quote(document_id, safe='')}"


def _answers(status: Status, version: int) -> bool:
    """Whether the version, or a newer one, is searchable."""
    if status["searchable_version"] is not None and status["searchable_version"] >= version:
        return True
    if status["version"] >= version and status["state"] in ("dead-lettered", "deleted"):
        why = f": {status['error']}" if status["error"] else ""
        raise NotSearchableError(f"{status['document_id']!r} is {status['state']}{why}")
    return False


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _json_or_none(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, RefusedError) and error.status in _BUSY


def _pause(state: RetryCallState) -> float:
    """Seconds as the API said, else ever longer ones."""
    error = state.outcome and state.outcome.exception()
    said = error.retry_after if isinstance(error, RefusedError) else None
    return _BACK_OFF(state) if said is None else said
