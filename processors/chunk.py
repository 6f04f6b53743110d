"""Text becomes pieces of bounded token count, cut where its structure allows."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

# The splitter's time grows faster than the text it is given, so that long texts are handed over in sections.
_MAX_SECTION_CHARS = 10_000
_MAX_SOLID_CHARS = 2_000  # where there is no place to cut at
_BREAKS = tuple(map(re.compile, (r"\n(?=#{1,6} )", r"\n\s*\n", r"\n", r"\s", "[。．！？]")))
_MAX_REMEMBERED_WORDS = 100_000
_MAX_WORD_CHARS = 100
_WORD_PART = re.compile(r"[^。．，、；：！？…]{1,64}[。．，、；：！？…]?|.", re.S)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_ONLY_HEADINGS = re.compile(r"(?:\s*#{1,6}[ \t].*)+")
_SETEXT_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_NO_SETEXT_TEXT = re.compile(r"\s*(?:$|[|>#+*-]|\d+[.)]\s|`{3}|~{3})")


@dataclass(frozen=True)
class Piece:
    """A piece of a text: ``text == whole[start:end]``, and the headings above it, outermost first."""

    text: str
    start: int
    end: int
    headings: tuple[str, ...]


@dataclass(frozen=True)
class _Heading:
    start: int
    level: int
    text: str


class Splitter:
    """Cuts texts into pieces of at most ``max_tokens`` tokens, special tokens not counted."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, overlap_tokens: int) -> None:
        counts = _TokenCounts(tokenizer)
        self._markdown = MarkdownSplitter.from_callback(counts.of_text, max_tokens, overlap=overlap_tokens)
        self._plain = TextSplitter.from_callback(counts.of_text, max_tokens, overlap=overlap_tokens)

    def split(self, text: str, *, markdown: bool) -> list[Piece]:
        """Pieces in order. Every letter and digit is in one, more than one where pieces overlap."""
        spans = self._markdown_spans if markdown else self._plain.chunk_indices
        paths = _HeadingPaths(text) if markdown else None
        pieces = []
        for section_start, section in _sections(text):
            for offset, piece in spans(section):
                start = section_start + offset
                if any(map(str.isalnum, piece)):
                    headings = paths.above(start) if paths else ()
                    pieces.append(Piece(piece, start, start + len(piece), headings))
        return pieces

    def _markdown_spans(self, section: str) -> list[tuple[int, str]]:
        """What the splitter cuts, but a heading goes with the beginning of what it stands above.

        The splitter leaves it alone where all that follows it makes a full piece; by itself it says nothing, and
        yet is found first.
        """
        spans: list[tuple[int, str]] = []
        for start, piece in self._markdown.chunk_indices(section):
            if spans and _ONLY_HEADINGS.fullmatch(spans[-1][1]):
                heading_start, _ = spans.pop()
                joined = section[heading_start:start].replace("\n", " ") + piece
                spans += [
                    (heading_start + offset, section[heading_start + offset :][: len(part)])
                    for offset, part in self._plain.chunk_indices(joined)
                ]
            else:
                spans.append((start, piece))
        return spans


class _TokenCounts(dict[str, int]):
    """Tokens per word. Tokenizers cut at white space, so that a text's count is the sum over its words.

    The splitter asks for the count of every text several times over; tokenizing each anew took most of its time.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())  # a copy: the caller's may truncate
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def of_text(self, text: str) -> int:
        return sum(map(self.__getitem__, text.split()))

    def __missing__(self, word: str) -> int:
        if len(word) > _MAX_WORD_CHARS:
            # Scripts without white space, and what is no word at all: WordPiece takes that for one unknown token,
            # which must not make a piece of a megabyte. A token more for each cut that is none to the tokenizer.
            return sum(1 + self[part] for part in _WORD_PART.findall(word))
        if len(self) >= _MAX_REMEMBERED_WORDS:
            self.clear()
        count = len(self._tokenizer.encode(word, add_special_tokens=False).ids)
        self[word] = count
        return count


class _HeadingPaths:
    """Which headings stand above a position of a Markdown text."""

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._above: list[tuple[str, ...]] = [()]  # above the heading itself
        self._below: list[tuple[str, ...]] = [()]  # above what follows the heading
        path: list[_Heading] = []
        for heading in _headings(text):
            path = [outer for outer in path if outer.level < heading.level]
            self._starts.append(heading.start)
            self._above.append(tuple(outer.text for outer in path))
            path.append(heading)
            self._below.append(tuple(outer.text for outer in path))

    def above(self, start: int) -> tuple[str, ...]:
        """The path above what starts at ``start``; a heading is not above itself."""
        index = bisect_right(self._starts, start)
        is_heading = index > 0 and self._starts[index - 1] == start
        return (self._above if is_heading else self._below)[index]


def _headings(text: str) -> Iterator[_Heading]:
    """ATX and one-line setext headings outside of fenced code."""
    fence, before, before_start, start = "", "", 0, 0
    paragraph_lines = 0
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
        elif mark:
            fence, paragraph_lines = mark[1], 0
        elif atx := _ATX_HEADING.match(line):
            yield from _heading(start, line, len(atx[1]), atx[2])
            paragraph_lines = 0
        elif paragraph_lines == 1 and (underline := _SETEXT_UNDERLINE.match(line)):
            yield from _heading(before_start, before, 1 if underline[1].startswith("=") else 2, before.strip())
            paragraph_lines = 0
        else:
            paragraph_lines = 0 if _NO_SETEXT_TEXT.match(line) else paragraph_lines + 1
        before, before_start = line, start
        start += len(line) + 1


def _heading(line_start: int, line: str, level: int, text: str) -> Iterator[_Heading]:
    if text:
        yield _Heading(line_start + len(line) - len(line.lstrip()), level, text)


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """Parts of a text with their offsets: cut before a heading if possible, else between paragraphs, lines, words."""
    start = 0
    while len(text) - start > _MAX_SECTION_CHARS:
        end = _section_end(text, start)
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def _section_end(text: str, start: int) -> int:
    limit = start + _MAX_SECTION_CHARS
    for pattern in _BREAKS:
        ends = [found.end() for found in pattern.finditer(text, start + _MAX_SECTION_CHARS // 2, limit)]
        if ends:
            return ends[-1]
    return start + _MAX_SOLID_CHARS
