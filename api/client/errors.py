"""What a call may raise.

AegisError
├── UnreachableError   nobody answers at the address, or the connection broke
├── NotSearchableError a document is dead-lettered or deleted: waiting does not help
├── NotInTimeError     a document is not searchable in the time given
└── RefusedError       the API answered with a problem (RFC 9457)
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx


class AegisError(Exception):
    """Anything that went wrong."""


class UnreachableError(AegisError):
    """Nobody answers, or the connection broke; what was sent may have arrived."""


class NotSearchableError(AegisError):
    """A document is dead-lettered or deleted: waiting does not help."""


class NotInTimeError(AegisError):
    """A document is not searchable in the time given."""


class RefusedError(AegisError):
    """A problem: ``status``, ``kind`` (the end of its type), ``detail``, ``request_id``, and all of it in ``problem``.

    ``retry_after`` is in seconds, None where the API did not say.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.kind = str(problem.get("type", "about:blank")).rpartition(":")[2]
        self.detail = str(problem.get("detail") or problem.get("title") or f"status {status}")
        self.request_id = problem.get("request_id")
        self.retry_after = retry_after
        super().__init__(self._sentence())

    @classmethod
    def of(cls, response: httpx.Response) -> "RefusedError":
        """What a response that was read says, be it the API's or that of a proxy before it."""
        return cls(response.status_code, _object(response.text), retry_after=_seconds(response.headers))

    def _sentence(self) -> str:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in self.problem.get("errors", ())]
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.kind}: {'; '.join([self.detail, *wrong])}{request}"


def _object(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _seconds(headers: httpx.Headers) -> float | None:
    said = headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None
