"""Who did what: a line of JSON for each write and each act of an administrator, in files of bounded size."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import structlog
from pydantic import BaseModel

from api.access.store import locked

_FILES = 5
_MEGABYTE = 1024 * 1024

log = structlog.get_logger()


class Act(BaseModel):
    """Something that was done. ``outcome`` is the answer's status, or a word where nothing was asked over HTTP."""

    at: str
    who: str
    tenant: str | None
    what: str
    which: str
    outcome: str
    request_id: str


class AuditLog:
    """Appends to ``<folder>/audit.jsonl``, from any thread and process of the machine; the oldest file goes."""

    def __init__(self, folder: Path, *, max_mb: int) -> None:
        self._folder = folder
        self._max_bytes = max_mb * _MEGABYTE

    def add(
        self, *, who: str, what: str, which: str, outcome: str, tenant: str | None = None, request_id: str = ""
    ) -> None:
        """Note an act. What is done is done: where it cannot be noted, the log of the process has it."""
        act = Act(
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            who=who,
            tenant=tenant,
            what=what,
            which=which,
            outcome=outcome,
            request_id=request_id,
        )
        line = json.dumps(act.model_dump()).encode() + b"\n"
        try:
            with locked(self._folder / "audit.lock"):
                self._rotate(len(line))
                with self._file(0).open("ab", buffering=0) as file:
                    file.write(line)
        except OSError as error:
            log.exception("not-audited", error=str(error), **act.model_dump(exclude={"at"}))

    def last(self, limit: int) -> list[Act]:
        """The latest acts, the newest first."""
        return [Act.model_validate_json(line) for line in islice(self._lines(), limit)]

    def _lines(self) -> Iterator[bytes]:
        for number in range(_FILES):
            try:
                lines = self._file(number).read_bytes().splitlines()
            except FileNotFoundError:
                return
            yield from reversed(lines)

    def _file(self, number: int) -> Path:
        return self._folder / ("audit.jsonl" if number == 0 else f"audit.{number}.jsonl")

    def _rotate(self, more: int) -> None:
        current = self._file(0)
        if current.exists() and current.stat().st_size + more > self._max_bytes:
            for number in reversed(range(_FILES - 1)):
                if self._file(number).exists():
                    self._file(number).replace(self._file(number + 1))
