"""The conversion process: one file after the other from standard input, its text to standard output.

Started and watched by ``processors.convert.Converter``. A file may hang it, exhaust it or crash it: that is why it
is a process of its own. A frame is two lengths (big-endian uint32), a JSON object, and bytes.
"""

import io
import json
import os
import queue
import re
import struct
import threading
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError  # nosec B405  # the exception; processors/markup.py parses

from processors import markup
from processors.errors import PermanentError
from processors.media_types import HTML, OLE, SPREADSHEETS, SUPPORTED, XHTML, XML
from processors.plain_text import NO_TEXT, checked, cleaned, decoded, first_heading, tidy_title

_LENGTHS = struct.Struct(">II")
_MAX_REASON_CHARS = 200
_PICTURE = re.compile(rb"<p:pic>.*?</p:pic>", re.S)
_WITH_OWN_CHARSET = frozenset({HTML, XHTML, XML, "image/svg+xml"})
_BY_US: dict[str, Callable[[str], str]] = {
    "text/asciidoc": markup.markdown_from_asciidoc,
    "text/vtt": markup.text_from_captions,
    "application/x-subrip": markup.text_from_captions,
    "application/json": markup.text_from_json,
    "application/x-ndjson": markup.text_from_json_lines,
    "application/x-yaml": str,
    "application/toml": str,
    "application/x-bibtex": str,
}
_MADE_READY: dict[str, Callable[[str], str]] = {
    "text/x-rst": markup.rst_ready,
    "application/x-latex": markup.latex_ready,
    "application/x-fictionbook+xml": markup.xml_ready,
    "application/x-jats+xml": markup.xml_ready,
    "application/docbook+xml": markup.xml_ready,
    "application/xml+opml": markup.xml_ready,
    **dict.fromkeys(("text/csv", "text/tab-separated-values", "text/x-org", "text/x-djot", "text/mdx"), str),
    **dict.fromkeys(("application/x-typst", "application/x-ipynb+json"), str),
}


def send(stream: BinaryIO, header: dict[str, Any], content: bytes) -> None:
    """Write a frame."""
    encoded = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(encoded), len(content)) + encoded)
    stream.write(content)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read a frame.

    Raises:
        EOFError: The other side is gone.
    """
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    header_size, content_size = _LENGTHS.unpack(lengths)
    frame = stream.read(header_size + content_size)
    if len(frame) < header_size + content_size:
        raise EOFError
    return json.loads(frame[:header_size]), frame[header_size:]


class Extractor:
    """Text out of the bytes of one file; holds kreuzberg and how it is used."""

    def __init__(self) -> None:
        import kreuzberg

        self._kreuzberg = kreuzberg
        # Nothing outside the process: no cache on disk, no grammars or models fetched, no OCR.
        self._config = kreuzberg.ExtractionConfig(
            use_cache=False,
            enable_quality_processing=False,
            output_format="markdown",
            tree_sitter=kreuzberg.TreeSitterConfig(enabled=False),
            concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        )

    def extract(self, content: bytes, media_types: list[str], *, charset: str | None) -> tuple[str, bool, str | None]:
        """Text, whether it is Markdown, and title; by the first of ``media_types`` that fits.

        Raises:
            PermanentError: None of them fits, or the file is encrypted.
        """
        first: PermanentError | None = None
        for media_type in media_types:
            try:
                text, markdown, title = self._extract(content, media_type, charset)
            except Exception as error:  # whatever a parser raises, the file is at fault
                first = first or PermanentError(_reason(error, media_type, content))
                continue
            if not any(map(str.isalnum, text)) and _is_encrypted(content):
                raise PermanentError(_encrypted(media_type))
            text = cleaned(text).strip()
            title = tidy_title(title) or (first_heading(text) if markdown else None)
            return text, markdown, title
        raise first or PermanentError(NO_TEXT)

    def _extract(self, content: bytes, media_type: str, charset: str | None) -> tuple[str, bool, object]:
        if media_type in _BY_US:
            return _BY_US[media_type](cleaned(decoded(content, charset=charset))), media_type == "text/asciidoc", None
        if media_type in _MADE_READY:
            content = cleaned(_MADE_READY[media_type](decoded(content, charset=charset))).encode()
        if media_type in _WITH_OWN_CHARSET:
            return self._extract_markup(
                decoded(content, charset=charset or markup.declared_charset(content)), media_type
            )
        text, title = self._markdown(content, media_type)
        text = markup.without_markup(text)
        return markup.records_from_tables(text) if media_type in SPREADSHEETS else text, True, title

    def _extract_markup(self, page: str, media_type: str) -> tuple[str, bool, object]:
        if media_type not in (HTML, XHTML) and not re.search(r"<html[\s>]", page[:2048], re.I):
            try:
                return markup.text_from_xml(markup.xml_ready(page)), False, None
            except ParseError:
                text, _ = self._markdown(page.encode(), XML)
                return markup.without_markup(text), True, None
        page, title = markup.html_and_title(page)
        text, _ = self._markdown(page.encode(), HTML)
        return "" if markup.is_shell(page, text) else markup.without_markup(text), True, title

    def _markdown(self, content: bytes, media_type: str) -> tuple[str, object]:
        try:
            result = self._kreuzberg.extract_bytes_sync(content, media_type, self._config)
        except self._kreuzberg.ParsingError as error:
            if "Image " not in str(error) or "presentation" not in media_type:
                raise
            result = self._kreuzberg.extract_bytes_sync(_without_pictures(content), media_type, self._config)
        return result.content, result.metadata.get("title") or result.metadata.get("subject")


def _without_pictures(presentation: bytes) -> bytes:
    # kreuzberg refuses a whole presentation for one picture that is linked instead of embedded.
    rewritten = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(presentation)) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, _PICTURE.sub(b"", part) if name.startswith("ppt/slides/slide") else part)
    return rewritten.getvalue()


def _reason(error: Exception, media_type: str, content: bytes) -> str:
    text = (
        re.sub(r"^(?:\w+Error: |\w+ parsing failed: |Parsing error: )+", "", str(error)).strip() or type(error).__name__
    )
    line = text.splitlines()[0][:_MAX_REASON_CHARS]
    if "password" in text.lower() or _is_encrypted(content):
        return _encrypted(media_type)
    if "limit exceeded" in text.lower() or isinstance(error, MemoryError):
        return f"too large when unpacked: {line}; publish it in parts"
    return f"the file is damaged or not really {_named(media_type)}: {line}"


def _encrypted(media_type: str) -> str:
    return f"the {_named(media_type).partition(' ')[2]} is encrypted; publish it without a password"


def _named(media_type: str) -> str:
    name = SUPPORTED[media_type][0].removeprefix(".").upper()
    return f"{'an' if name[0] in 'AEFHILMNORSX' else 'a'} {name}"


def _is_encrypted(content: bytes) -> bool:
    if content.startswith(OLE):
        names = [name.encode("utf-16-le") for name in ("EncryptedPackage", "EncryptedSummary")]
        return any(name in content for name in names) or _is_encrypted_word(content)
    if not content.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if any(entry.flag_bits & 1 for entry in entries.values()) or "META-INF/encryption.xml" in entries:
                return True
            return b"encryption-data" in archive.open("META-INF/manifest.xml").read(1_000_000)
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError):
        return False


def _is_encrypted_word(content: bytes) -> bool:
    # [MS-DOC] 2.5.2 FibBase: wIdent 0xA5EC at the start of a sector, and bit 8 of the flags at offset 10.
    starts = (start for start in range(512, len(content) - 12, 512) if content[start : start + 2] == b"\xec\xa5")
    start = next(starts, None)
    return start is not None and bool(content[start + 11] & 1)


def _answer(extractor: Extractor, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        text, markdown, title = extractor.extract(content, header["media_types"], charset=header["charset"])
        checked(text, max_chars=header["max_text_chars"])
    except PermanentError as error:
        return {"error": str(error)}, b""
    return {"markdown": markdown, "title": title}, text.encode()


def main() -> None:
    """Convert until standard input ends, and then stop at once, even within a file."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a native library prints must not look like an answer
    waiting: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                waiting.put(receive(requests))
        except EOFError:
            os._exit(0)  # whoever asked is gone

    extractor = Extractor()
    threading.Thread(target=read, daemon=True).start()
    send(answers, {"ready": True}, b"")
    while True:
        send(answers, *_answer(extractor, *waiting.get()))


if __name__ == "__main__":
    main()
