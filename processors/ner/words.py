"""Words as the recogniser sees them: BERT's word pieces, and what lower-casing threw away, the letters as written."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

LETTERS = 16  # of a longer word the first 10 and the last 6
CHARACTERS = (
    "\0\1\2\3"  # padding, then any other lower-case letter, capital, and sign
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    "äöüßÄÖÜéèêëáàâãåçíìîïñóòôõøúùûýčšžćğışłńřœæÉÅØÖÁÓČŠŽŁ"
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~–—’‘“”„«»…·•€£°"
)
SHAPES = 9

_WRAPPED = 45  # characters; text is wrapped at more

_CODES = {character: code for code, character in enumerate(CHARACTERS)}
_LOWER, _UPPER, _SIGN = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one text, in order. A word is a run of letters and digits, or one punctuation mark."""

    ids: list[int]  # word pieces
    word_of_piece: list[int]
    first_piece: list[int]
    spans: list[tuple[int, int]]  # characters of the text
    letters: NDArray[np.int32]  # [words, LETTERS]
    shapes: NDArray[np.int32]  # [words]
    opens: list[int]  # words before which a line ended that was not wrapped: no name goes across

    def words_within(self, first: int, max_pieces: int) -> int:
        """The word behind the last of those from ``first`` on that have so many pieces together."""
        limit = self.first_piece[first] + max_pieces
        return self.word_of_piece[limit] if limit < len(self.ids) else len(self.spans)

    def cut(self, first: int, behind: int) -> "Words":
        """The words from ``first`` to before ``behind``."""
        if first == 0 and behind == len(self.spans):
            return self
        start = self.first_piece[first]
        end = self.first_piece[behind] if behind < len(self.spans) else len(self.ids)
        return Words(
            self.ids[start:end],
            [word - first for word in self.word_of_piece[start:end]],
            [piece - start for piece in self.first_piece[first:behind]],
            self.spans[first:behind],
            self.letters[first:behind],
            self.shapes[first:behind],
            [word - first for word in self.opens if first <= word < behind],
        )


def words_from_encoding(text: str, encoding: Encoding) -> Words:
    """Words of a text from its encoding without special tokens."""
    word_of_piece: list[int] = []
    first_piece: list[int] = []
    spans: list[tuple[int, int]] = []
    opens: list[int] = []
    previous = None
    for piece, (word, (start, end)) in enumerate(zip(encoding.word_ids, encoding.offsets, strict=True)):
        if word != previous:
            if spans and _ends_line(text, spans[-1][1], start):
                opens.append(len(spans))
            first_piece.append(piece)
            spans.append((start, end))
            previous = word
        else:
            spans[-1] = (spans[-1][0], end)
        word_of_piece.append(len(spans) - 1)
    written = [text[start:end] for start, end in spans]
    letters = np.array([_letters(word) for word in written], np.int32).reshape(-1, LETTERS)
    shapes = np.array([_shape(word) for word in written], np.int32)
    return Words(encoding.ids, word_of_piece, first_piece, spans, letters, shapes, opens)


def _ends_line(text: str, end: int, start: int) -> bool:
    """Whether what ends before ``start`` is a line of its own, a heading or a signature, and none that was wrapped."""
    breaks = text.count("\n", end, start)
    return breaks > 1 or (breaks == 1 and end - text.rfind("\n", 0, end) - 1 < _WRAPPED)


def _letters(word: str) -> list[int]:
    if len(word) > LETTERS:
        word = word[:10] + word[-6:]
    codes = [_CODES.get(character) or _code_of_rare(character) for character in word]
    return codes + [0] * (LETTERS - len(codes))


def _code_of_rare(character: str) -> int:
    if character.isupper():
        return _UPPER
    return _LOWER if character.isalpha() else _SIGN


def _shape(word: str) -> int:
    """1 to 8: lower, capitalised, one capital, all capitals, mixed, digits, letters and digits, sign; 0 is padding."""
    if word.isdigit():
        return 6
    if not word.isalpha():
        return 7 if any(character.isalnum() for character in word) else 8
    if word.islower():
        return 1
    if word.isupper():
        return 3 if len(word) == 1 else 4
    return 2 if word[0].isupper() and word[1:].islower() else 5
