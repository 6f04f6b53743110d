"""What an answer may stand on: numbered passages and their sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from processors.sentences import Span, sentences

_MAX_SENTENCE_CHARS = 600
_CELL_ENDS = "|;\t"
_WORD = re.compile(r"\w+")
_HEADING = re.compile(r"#{1,6}[ \t][^\n]*\n+")


@dataclass(frozen=True, slots=True)
class Source:
    """A retrieved chunk under the number that an answer cites it by, from 1.

    ``start`` is the chunk's offset in the document's converted text. ``suspicious`` are spans of ``text`` that try to
    give orders to whoever reads it: they are neither quoted nor shown to a language model.
    """

    number: int
    document_id: str
    version: int
    chunk_index: int
    start: int
    text: str
    title: str | None = None
    suspicious: tuple[Span, ...] = ()

    @property
    def harmless_text(self) -> str:
        """The text without its suspicious spans."""
        kept, place = [], 0
        for start, end in self.suspicious:
            kept.append(self.text[place:start])
            place = end
        return "[…]".join([*kept, self.text[place:]])


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a source; ``text == source.text[start:end]``."""

    source: Source
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """Where an answer takes something from: ``quote`` is ``start`` to ``end`` of the document's converted text."""

    number: int
    document_id: str
    version: int
    chunk_index: int
    start: int
    end: int
    quote: str


def cited(sentence: Sentence) -> Citation:
    """The sentence as a citation."""
    source = sentence.source
    return Citation(
        number=source.number,
        document_id=source.document_id,
        version=source.version,
        chunk_index=source.chunk_index,
        start=source.start + sentence.start,
        end=source.start + sentence.end,
        quote=sentence.text,
    )


def sentences_of(sources: Sequence[Source]) -> list[Sentence]:
    """The sentences that may be quoted, in order: with words in them, and not suspicious."""
    return [
        Sentence(source, start, end, source.text[start:end])
        for source in sources
        for start, end in _quotable(source.text)
        if not any(start < last and first < end for first, last in source.suspicious)
    ]


def joined_sentences(text: str) -> Iterator[Span]:
    """Sentences, together the whole text; the cells of a table's row stay together."""
    begun = 0
    for _, end in sentences(text):
        is_cell = end < len(text) and text[end - 1 : end] in _CELL_ENDS and end - begun < _MAX_SENTENCE_CHARS
        if end > begun and not is_cell:
            yield begun, end
            begun = end


def _quotable(text: str) -> Iterator[Span]:
    """Sentences without the white space and the headings before them, if there are words in them."""
    for start, end in joined_sentences(text):
        first = start + len(text[start:end]) - len(text[start:end].lstrip())
        while heading := _HEADING.match(text, first, end):
            first = heading.end()
        last = min(first + len(text[first:end].rstrip()), first + _MAX_SENTENCE_CHARS)
        if _WORD.search(text, first, last):
            yield first, last
