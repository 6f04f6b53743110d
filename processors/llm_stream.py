"""An answer of a language model while it is being written, and how to stop it."""

import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import httpx
from pydantic_core import from_json

from processors.errors import UnavailableError

_MAX_LINE_CHARS = 1_000_000
_MAX_CHARS = 4_000_000  # a stream takes about 150 per token
_OPENED = (".connect_tcp.complete", ".start_tls.complete", ".connect_unix_socket.complete")


class Usage(NamedTuple):
    """Tokens of a question and of its answer."""

    prompt: int
    completion: int


class Step(NamedTuple):
    """What became of the thought to ask a model: ``answered``, or why not."""

    model: str
    outcome: str


class Reply(Iterator[str]):
    """Pieces of an answer, as they come. The request is made when the first is asked for.

    ``close`` may be called from any thread, also while another waits for a piece: it breaks the connection, so that the
    server stops too. ``cut`` says afterwards whether the server ended the answer for its length, ``usage`` what it
    counted, ``model`` who speaks once the first piece is there, ``sent`` whether a server has the question.

    Args:
        client: Must open a connection for each request, or closing one reply would break another.
        request: Method, path and body.
        model: Who is asked.
        protocol: What the server speaks.
        deadline: On ``time.monotonic``; nothing is waited for beyond it.
        first_by: The same for the first piece.
        refused: Makes the error of a status that is none of success, and of what came with it.
    """

    def __init__(
        self,
        client: httpx.Client,
        request: httpx.Request,
        *,
        model: str,
        protocol: Literal["openai", "ollama"],
        deadline: float,
        first_by: float,
        refused: Callable[[httpx.Response, str], UnavailableError],
    ) -> None:
        self.cut = False
        self.usage: Usage | None = None
        self.model: str | None = None
        self.route: Sequence[Step] = ()
        self.sent = False
        self._asked = model
        self._client = client
        self._request = request
        self._read = self._of_ollama if protocol == "ollama" else self._of_openai
        self._deadline = deadline
        self._first_by = first_by
        self._refused = refused
        self._socket: socket.socket | None = None
        self._closing = threading.Lock()
        self._closed = False
        self._pieces: Generator[str, None, None] = self._run()

    def __next__(self) -> str:
        """The next piece.

        Raises:
            RefusedError: The server does not take the question.
            UnavailableError: It cannot be reached, fails, breaks off, or is too slow.
        """
        return next(self._pieces)

    def close(self) -> None:
        """Stop the answer; nothing comes after that, or what reads it is told that it broke off."""
        with self._closing:
            self._closed = True
            self._break()
        with suppress(ValueError):  # another thread is in it, and notices
            self._pieces.close()

    def _run(self) -> Generator[str, None, None]:
        self._request.extensions["trace"] = self._note
        try:
            response = self._client.send(self._request, stream=True)
            try:
                if not response.is_success:
                    self.sent = False  # it did nothing
                    raise self._refused(response, response.read()[:200].decode(errors="replace"))
                yield from self._parsed(response)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._failed(repr(error)) from error

    def _parsed(self, response: httpx.Response) -> Iterator[str]:
        done, chars = False, 0
        for line in response.iter_lines():
            chars += len(line)
            if time.monotonic() > (self._deadline if self.model else self._first_by) or chars > _MAX_CHARS:
                raise self._failed("its answer takes too long")
            try:
                piece, done = self._read(line)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise self._failed(f"{error}, in {line[:200]!r}") from error
            if piece:
                self.model = self._asked
                yield piece
            if done:
                return
        raise self._failed("its answer breaks off")

    def _failed(self, why: str) -> UnavailableError:
        return UnavailableError(f"the language model {self._asked} fails: {why}")

    def _of_ollama(self, line: str) -> tuple[str, bool]:
        if not line.strip():
            return "", False
        record = _record(line)
        if record.get("done"):
            self.cut = record.get("done_reason") == "length"
            self.usage = _counted(record, "prompt_eval_count", "eval_count")
        return str(record.get("message", {}).get("content") or ""), bool(record.get("done"))

    def _of_openai(self, line: str) -> tuple[str, bool]:
        if not line.startswith("data:"):
            if line[:1] == "{":
                _record(line)
                raise ValueError("no stream")
            return "", False
        content = line.removeprefix("data:").strip()
        if content == "[DONE]":
            return "", True
        record = _record(content)
        self.usage = _counted(record.get("usage"), "prompt_tokens", "completion_tokens") or self.usage
        choices = record["choices"]
        if choices and choices[0].get("finish_reason") == "length":
            self.cut = True
        return str((choices[0].get("delta") or {}).get("content") or "") if choices else "", False

    def _note(self, event: str, details: Mapping[str, Any]) -> None:
        """Remember the connection (httpx's trace extension) as soon as there is one."""
        if event.endswith(_OPENED):
            with self._closing:
                self.sent = True
                self._socket = details["return_value"].get_extra_info("socket")
                if self._closed:
                    self._break()

    def _break(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _counted(record: object, *names: str) -> Usage | None:
    """The counts of these two names, if there are some."""
    if not isinstance(record, dict):
        return None
    counts = [count for name in names if isinstance(count := record.get(name), int) and count >= 0]
    return Usage(*counts) if len(counts) == 2 else None


def _record(line: str) -> dict[str, Any]:
    record = from_json(line[:_MAX_LINE_CHARS])
    if error := record.get("error"):
        raise ValueError(str(error))
    return dict(record)
