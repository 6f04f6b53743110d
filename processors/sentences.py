"""Where sentences end, in English and German prose, Markdown and lists; and what in a text is no prose."""

import re
from collections.abc import Iterator

from processors import lexicon

Span = tuple[int, int]

# Code blocks and headings; then code spans, addresses, tags and link targets.
_HIDDEN = re.compile(
    r"(?P<block>^(?:```|~~~)[\s\S]*?(?:^(?:```|~~~)|\Z)|^\#{1,6}[ \t][^\n]*)"
    r"|`[^`\n]+`|\b(?:https?|ftp)://[^\s<>]+|\bwww\.[^\s<>]+|(?<![\w.+-])[\w.+-]++@[\w.-]+"
    r"|<[^<>\n]{1,200}>|\]\([^()\s]*\)",
    re.MULTILINE,
)
_BOUNDARY = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s)|\n\s*\n|\n(?=[ \t]*(?:[-*+•>]|\d+[.)])[ \t])|[|;\t]")

_FUNCTION_WORDS = lexicon.ENGLISH_FUNCTION_WORDS | lexicon.GERMAN_FUNCTION_WORDS


def prose(text: str) -> str:
    """The text, as long as before, without code, headings, addresses, tags and link targets."""
    return _HIDDEN.sub(_blank, text)


def _blank(hidden: re.Match[str]) -> str:
    """As many characters that belong to no word; a block ends sentences, anything else stands within one."""
    return ("\n" if hidden.lastgroup == "block" else "\0") * len(hidden[0])


def sentences(text: str) -> Iterator[Span]:
    """Start and end of each sentence, in order; together they are the whole text."""
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        if boundary[0] != "." or not _goes_on(text, boundary):
            yield start, boundary.end()
            start = boundary.end()
    yield start, len(text)


def takes_dot(word: str) -> bool:
    """Whether a dot behind the word belongs to it: an initial, "U.S", an abbreviation."""
    return len(word) == 1 or word[1] == "." or word.lower() in lexicon.ABBREVIATIONS


def _goes_on(text: str, dot: re.Match[str]) -> bool:
    before = text[max(0, dot.start() - 16) : dot.start()].split()
    after = text[dot.end() : dot.end() + 16].split()
    if not before or not after:
        return False
    word = before[-1].lstrip("(\"'“„")
    is_short = bool(word) and takes_dot(word)
    return after[0][0].islower() or (is_short and after[0].lower() not in _FUNCTION_WORDS)
