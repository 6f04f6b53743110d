"""Plain text: out of bytes, freed of what no index wants, and refused where there is nothing to read."""

import re

from processors.errors import PermanentError
from processors.media_types import is_utf16

NO_TEXT = "no text in it: a scan or picture without OCR, or a page whose text is made by scripts"

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# Control characters, invisible marks, lone surrogates, and private-use characters (symbol fonts of PDF files).
_UNWANTED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\xad\u200b\u2060\ufeff\ud800-\udfff\ue000-\uf8ff]")
_LINE_ENDS = re.compile("\r\n?|[\x0c\x85\u2028\u2029]")
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n((?:.*\n)*?)(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
_TITLE = re.compile(r"^title\s*[:=][ \t]*(['\"]?)(.+?)\1[ \t]*$", re.M | re.I)
_FIRST_HEADING = re.compile(r"\A\s*# +(.+?)(?: +#+)?[ \t]*$", re.M)
_UNDEFINED_IN_CP1252 = re.compile(b"[\x81\x8d\x8f\x90\x9d]")
_MAX_TITLE_CHARS = 300


def decoded(content: bytes, *, charset: str | None = None) -> str:
    """Text of a text file: by byte order mark, UTF-8, the declared charset, UTF-16, or what it most likely is."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    for encoding in filter(None, (is_utf16(content), "utf-8", charset)):
        try:
            return content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode(_likely_encoding(content), "replace")


def cleaned(text: str) -> str:
    """Text with newline as its only line end, without control characters, lone surrogates and invisible marks."""
    return _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))


def checked(text: str, *, max_chars: int) -> str:
    """The text itself.

    Raises:
        PermanentError: There is no letter or digit in it, or it is too long.
    """
    if len(text) > max_chars:
        raise PermanentError(
            f"too large: {len(text):,} characters of text, the limit is {max_chars:,}; publish it in parts"
        )
    if not any(map(str.isalnum, text)):
        raise PermanentError(NO_TEXT)
    return text


def without_front_matter(text: str) -> tuple[str, str | None]:
    """Markdown without the metadata block at its top, and the title given there, or else in its first line."""
    found = _FRONT_MATTER.match(text)
    body = text[found.end() :] if found else text
    title = _TITLE.search(found[2]) if found else None
    return body, tidy_title(title[2]) if title else first_heading(body)


def first_heading(markdown: str) -> str | None:
    """The heading of level 1 that Markdown starts with."""
    found = _FIRST_HEADING.match(markdown)
    return tidy_title(found[1]) if found else None


def tidy_title(title: object) -> str | None:
    """A title on one line of bounded length; None for what is not a title."""
    if not isinstance(title, str):
        return None
    return " ".join(cleaned(title).split())[:_MAX_TITLE_CHARS].strip() or None


def _likely_encoding(content: bytes) -> str:
    # Detection is unreliable where few letters are not ASCII: there Western European is the best guess.
    sample = content[:65536]
    foreign = sum(byte > 127 for byte in sample)
    if foreign < 0.15 * len(sample) and not _UNDEFINED_IN_CP1252.search(sample):
        return "cp1252"
    import charset_normalizer

    best = charset_normalizer.from_bytes(sample).best()
    return best.encoding if best is not None else "cp1252"
