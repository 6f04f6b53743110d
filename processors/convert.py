"""Files become text, in a process of its own that is killed when a file takes too long or too much memory."""

import subprocess  # nosec B404  # this program's own module
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any, BinaryIO, cast

import psutil

from processors.convert_child import receive, send
from processors.errors import PermanentError, UnavailableError
from processors.media_types import (
    HTML,
    OCTET_STREAM,
    SUPPORTED,
    XML,
    canonical,
    is_binary,
    media_type_of,
    media_type_of_bytes,
)
from processors.plain_text import NO_TEXT, checked, cleaned, decoded, without_front_matter
from schemas.settings import Conversion

__all__ = ["SUPPORTED", "Converted", "Converter", "media_type_of"]

_FILES_PER_CHILD = 200  # then a fresh one, so that what native parsers leak does not grow
_WATCH_INTERVAL = 0.02
_START_TIMEOUT = 60.0
_MEGABYTE = 1024 * 1024
# Content that tells what it is whatever it is called; text does not.
_TRUSTED_CONTENT = SUPPORTED.keys() - {"text/plain", HTML, XML}


@dataclass(frozen=True)
class Converted:
    """The text of a file; ``markdown`` says whether headings, lists and tables in it are Markdown's."""

    text: str
    markdown: bool
    title: str | None


class Converter:
    """Converts one file at a time, from any thread; the conversion process starts with the first file it is for."""

    def __init__(self, settings: Conversion) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def convert(self, content: bytes, *, media_type: str, name: str | None = None) -> Converted:
        """The text of a file of that media type; where that says nothing, ``name`` and the content decide.

        Raises:
            PermanentError: The file yields no text; the message says why and what to do.
            UnavailableError: The conversion process cannot be started, or the converter was closed.
        """
        if not content:
            raise PermanentError("the file is empty")
        if len(content) > self._settings.max_input_mb * _MEGABYTE:
            raise PermanentError(
                f"too large: {len(content) / _MEGABYTE:.1f} MB, the limit is {self._settings.max_input_mb} MB; "
                "publish it in parts"
            )
        charset = _charset(media_type)
        media_types = _candidates(content, media_type, name)
        if media_types[0] in ("text/plain", "text/markdown"):
            return self._decoded(content, markdown=media_types[0] == "text/markdown", charset=charset)
        header = {
            "media_types": media_types,
            "charset": charset,
            "max_text_chars": self._settings.max_text_chars,
        }
        with self._lock:
            answer, text = self._ask(header, content)
        if "error" in answer:
            raise PermanentError(answer["error"])
        return Converted(text.decode(), answer["markdown"], answer["title"])

    def close(self) -> None:
        """End the conversion process; a conversion under way raises ``UnavailableError``."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill("")
        with self._lock:
            self._drop()

    def _decoded(self, content: bytes, *, markdown: bool, charset: str | None) -> Converted:
        text, title = cleaned(decoded(content, charset=charset)), None
        if markdown:
            text, title = without_front_matter(text)
        return Converted(checked(text, max_chars=self._settings.max_text_chars), markdown, title)

    def _ask(self, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        for _ in range(2):  # a process that someone else killed is not the file's fault
            child = self._started()
            try:
                answer = child.ask(header, content, self._settings)
            except (EOFError, OSError):
                self._drop()
                if child.killed_because:
                    raise PermanentError(child.killed_because) from None
            else:
                if child.is_worn(self._settings):
                    self._drop()
                return answer
        raise PermanentError(
            f"the file crashes the converter (exit code {child.exit_code}): it is damaged or was made to do so"
        )

    def _started(self) -> "_Child":
        if self._child is None and not self._closed:
            self._child = _Child()
        if self._child is None or self._closed:
            self._drop()
            raise UnavailableError("the converter is closed")
        return self._child

    def _drop(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


class _Child:
    """One conversion process, ready for a file once constructed."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C and a signal to the process group are for the parent, which ends it.
        self._process = subprocess.Popen(  # nosec B603  # constants only; documents come by its standard input
            [sys.executable, "-m", "processors.convert_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._requests = cast("BinaryIO", self._process.stdin)
        self._answers = cast("BinaryIO", self._process.stdout)
        self._files = 0
        self.killed_because = ""
        try:
            with self._watched(timeout=_START_TIMEOUT, max_mb=sys.maxsize):
                receive(self._answers)
        except (EOFError, OSError):
            self.close()
            raise UnavailableError(
                f"the conversion process does not start (exit code {self.exit_code}); "
                "`python -m processors.convert_child` shows why"
            ) from None

    @property
    def exit_code(self) -> int | None:
        """As ``subprocess`` gives it: negative is the number of the signal."""
        return self._process.returncode

    def ask(self, header: dict[str, Any], content: bytes, limits: Conversion) -> tuple[dict[str, Any], bytes]:
        """The answer for one file.

        Raises:
            EOFError, OSError: The process ended; ``killed_because`` says why if it was killed here.
        """
        self._files += 1
        with self._watched(timeout=limits.timeout, max_mb=limits.max_memory_mb):
            send(self._requests, header, content)
            return receive(self._answers)

    def is_worn(self, limits: Conversion) -> bool:
        """Whether it has done enough files, or has or had too much for which the next file would be blamed."""
        if self.killed_because:  # at the very moment at which it answered
            return True
        return self._files >= _FILES_PER_CHILD or self._memory_mb() > limits.max_memory_mb / 2

    def kill(self, because: str) -> None:
        """End it now; whoever waits for its answer gets an ``EOFError``."""
        self.killed_because = because
        self._process.kill()

    def close(self) -> None:
        """Let it end, which it does when its input does, and take its exit code."""
        with suppress(OSError):  # what could not be sent to a dead process
            self._requests.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    @contextmanager
    def _watched(self, *, timeout: float, max_mb: int) -> Iterator[None]:
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done, timeout, max_mb), daemon=True)
        watch.start()
        try:
            yield
        finally:
            done.set()
            watch.join()

    def _watch(self, done: threading.Event, timeout: float, max_mb: int) -> None:
        # Resident memory, watched from outside: a limit set on the process (RLIMIT_AS, RLIMIT_DATA) makes kreuzberg
        # abort, which looks like any other crash.
        deadline = time.monotonic() + timeout
        while not done.wait(_WATCH_INTERVAL):
            if time.monotonic() > deadline:
                self.kill(f"it takes longer than {timeout:g} s to convert; publish it in parts or as plain text")
            elif self._memory_mb() > max_mb:
                self.kill(f"it needs more than {max_mb} MB of memory to convert; publish it in parts or as plain text")

    def _memory_mb(self) -> float:
        try:
            return psutil.Process(self._process.pid).memory_info().rss / _MEGABYTE
        except psutil.Error:
            return 0.0


def _candidates(content: bytes, media_type: str, name: str | None) -> list[str]:
    """The formats to try in order; at least one.

    Raises:
        PermanentError: There is none.
    """
    declared = canonical(media_type)
    by_content = media_type_of_bytes(content)
    if declared.startswith("text/") and is_binary(content):
        declared = OCTET_STREAM  # text/plain is what a producer gets who does not say what it sends
    if declared == OCTET_STREAM:
        declared = media_type_of(name or "", content)
    if declared.startswith("text/") and declared not in SUPPORTED:
        declared = "text/plain"
    if declared not in SUPPORTED and by_content in _TRUSTED_CONTENT:
        declared = by_content
    if declared.startswith("image/") and declared not in SUPPORTED:
        raise PermanentError(NO_TEXT)
    if declared not in SUPPORTED:
        which = declared if declared != OCTET_STREAM else f"of {name!r}" if name else OCTET_STREAM
        raise PermanentError(
            f"unknown format {which}; publish it in one that can be converted, PDF or DOCX for example"
        )
    return [declared, *_disguises(declared, by_content)]


def _disguises(declared: str, by_content: str) -> list[str]:
    """What a file may be that does not convert as what it says it is: names of old Office files tell little."""
    if by_content in _TRUSTED_CONTENT and by_content != declared:
        return [by_content]
    if declared in ("application/msword", "application/vnd.ms-excel") and by_content in (HTML, XML):
        return [by_content]
    return ["text/csv"] if declared == "application/vnd.ms-excel" and by_content == "text/plain" else []


def _charset(media_type: str) -> str | None:
    header = Message()
    header["Content-Type"] = media_type
    return header.get_content_charset()
