"""An answer of a language model while it is being written, and how to stop it."""

import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

import httpx
from pydantic_core import from_json

from processors.errors import UnavailableError

_MAX_LINE_CHARS = 1_000_000
_OPENED = (".connect_tcp.complete", ".start_tls.complete", ".connect_unix_socket.complete")


class Reply(Iterator[str]):
    """Pieces of an answer, as they come. The request is made when the first is asked for.

    ``close`` may be called from any thread, also while another waits for a piece: it breaks the connection, so that the
    server stops too. ``cut`` says afterwards whether the server ended the answer for its length.

    Args:
        client: Must open a connection for each request, or closing one reply would break another.
        request: Method, path and body.
        protocol: What the server speaks.
        deadline: On ``time.monotonic``; nothing is waited for beyond it.
        refused: Makes the error of a status that is none of success, and of what came with it.
    """

    def __init__(
        self,
        client: httpx.Client,
        request: httpx.Request,
        *,
        protocol: Literal["openai", "ollama"],
        deadline: float,
        refused: Callable[[httpx.Response, str], UnavailableError],
    ) -> None:
        self.cut = False
        self._client = client
        self._request = request
        self._read = self._of_ollama if protocol == "ollama" else self._of_openai
        self._deadline = deadline
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
                    raise self._refused(response, response.read()[:200].decode(errors="replace"))
                yield from self._parsed(response)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise UnavailableError(f"the language model fails: {error!r}") from error

    def _parsed(self, response: httpx.Response) -> Iterator[str]:
        done = False
        for line in response.iter_lines():
            if time.monotonic() > self._deadline:
                raise UnavailableError("the language model fails: its answer takes too long")
            try:
                piece, done = self._read(line)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                said = line[:200]
                raise UnavailableError(f"the language model fails: {error}, in {said!r}") from error
            if piece:
                yield piece
            if done:
                return
        raise UnavailableError("the language model fails: its answer breaks off")

    def _of_ollama(self, line: str) -> tuple[str, bool]:
        if not line.strip():
            return "", False
        record = _record(line)
        if record.get("done"):
            self.cut = record.get("done_reason") == "length"
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
        choices = _record(content)["choices"]
        if choices and choices[0].get("finish_reason") == "length":
            self.cut = True
        return str((choices[0].get("delta") or {}).get("content") or "") if choices else "", False

    def _note(self, event: str, details: Mapping[str, Any]) -> None:
        """Remember the connection (httpx's trace extension) as soon as there is one."""
        if event.endswith(_OPENED):
            with self._closing:
                self._socket = details["return_value"].get_extra_info("socket")
                if self._closed:
                    self._break()

    def _break(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _record(line: str) -> dict[str, Any]:
    record = from_json(line[:_MAX_LINE_CHARS])
    if error := record.get("error"):
        raise ValueError(str(error))
    return dict(record)
