"""Orders to a language model that stand in a passage or a question, also those that are written to be overlooked.

What is found is no proof and what is not found is no licence: a passage is quoted data in any case (see
``processors.answers.prompts``), and what a model answers is checked (``processors.answers.checks`` and ``guard``).
"""

import base64
import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape

from processors.answers.injection_patterns import PATTERNS
from processors.sentences import Span, sentences

_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,4000}={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")
_HEX = re.compile(r"\b(?:[0-9a-fA-F]{2}){16,2000}\b")
_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_*]{1,3}){6,}\w(?!\w)")
_SEPARATORS = re.compile(r"[ .\-_*]")
_LEET = str.maketrans("013457@$", "oieastas")
_LOOKALIKES = str.maketrans("аеорсухіјѕԁɡαονερτυκι", "aeopcyxijsdgaoveptuki")
_LATIN = re.compile("[a-z]")
_SPACE = re.compile(r"[ \t\r\f\v]+")
_MAX_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a text seems to try (a kind of pattern, or ``hidden``), and the characters that do."""

    kind: str
    start: int
    end: int


def suspicions(text: str) -> list[Suspicion]:
    """Where a text seems to give orders: the sentence that does, to the end of its paragraph, in order."""
    kind_of_all = kind_of(text)
    if kind_of_all is None:
        return []
    found = [
        Suspicion(kind, start, _end_of_paragraph(text, end))
        for start, end in sentences(text)
        if (kind := kind_of(text[start:end])) is not None
    ]
    if not found:  # spread over several sentences
        return [Suspicion(kind_of_all, 0, len(text))]
    return _without_overlaps(found)


def spans(text: str) -> tuple[Span, ...]:
    """The characters of ``suspicions``."""
    return tuple((one.start, one.end) for one in suspicions(text))


def kind_of(text: str, *, depth: int = 0) -> str | None:
    """What a short text seems to try, read plainly and in every disguise; None if it looks harmless."""
    for view in _views(text):
        for kind, hints, regex in PATTERNS:
            if any(hint in view for hint in hints) and regex.search(view):
                return kind
    if _TAGS.search(_FLAG.sub("", text)):
        return "hidden"  # characters that only a machine reads
    if depth < _MAX_DEPTH:
        return next(filter(None, (kind_of(part, depth=depth + 1) for part in _decoded(text))), None)
    return None


def _end_of_paragraph(text: str, place: int) -> int:
    following = text.find("\n\n", max(place - 2, 0))
    return len(text) if following < 0 else max(following, place)


def _without_overlaps(found: list[Suspicion]) -> list[Suspicion]:
    kept: list[Suspicion] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def _views(text: str) -> Iterator[str]:
    """The text as a person reads it, and as it may be meant."""
    visible = _INVISIBLE.sub("", unescape(unicodedata.normalize("NFKC", text))).lower()
    plain = _plain(visible)
    yield plain
    yield plain.replace("\n", " ")
    spaced = _SPACED.sub(lambda run: _SEPARATORS.sub("", run[0]), visible)
    yield from {_plain(spaced), _unleet(plain), codecs.encode(plain, "rot13"), plain[::-1]} - {plain}


def _plain(text: str) -> str:
    return _SPACE.sub(" ", " ".join(map(_folded, text.split(" ")))).strip()


def _folded(word: str) -> str:
    """Letters of other scripts that look Latin, in a word that is otherwise Latin."""
    return word.translate(_LOOKALIKES) if _LATIN.search(word) else word


def _unleet(text: str) -> str:
    return re.sub(r"\S*[a-z]\S*", lambda word: word[0].translate(_LEET), text)


def _decoded(text: str) -> Iterator[str]:
    """What stands in a text in base64 or hexadecimal digits."""
    for found in _BASE64.finditer(text):
        digits = found[0].rstrip("=").translate(_URL_SAFE)
        yield from _readable(base64.b64decode, digits + "=" * (-len(digits) % 4))
    for found in _HEX.finditer(text):
        yield from _readable(bytes.fromhex, found[0])


def _readable(decode: Callable[[str], bytes], digits: str) -> Iterator[str]:
    try:
        text = decode(digits).decode()
    except ValueError:
        return
    if text.isprintable():
        yield text
