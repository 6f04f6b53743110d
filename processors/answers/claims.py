"""What a language model says, cut into claims while it is still talking."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from processors.answers.sources import joined_sentences

_MARK = re.compile(r"\[(\d{1,3}(?: ?[,;] ?\d{1,3})*)\]")
_MARKS_BEHIND = re.compile(r"(?:\s*\[\d{1,3}(?: ?[,;] ?\d{1,3})*\])+[.,;]?")
_OPEN_MARK = re.compile(r"\s*(?:\[[\d ,;]*)?$")
_WORD = re.compile(r"\w+")
_NO_CLAIM_WORDS = 2


@dataclass(frozen=True)
class Claim:
    """A sentence as it was said, with its marks (``[2]``) and the white space behind it."""

    text: str

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The sources that it names, in order."""
        found = [int(number) for mark in _MARK.findall(self.text) for number in re.findall(r"\d+", mark)]
        return tuple(dict.fromkeys(found))

    @cached_property
    def statement(self) -> str:
        """What it says, without the marks."""
        return " ".join(_MARK.sub("", self.text).split())

    @property
    def claims_something(self) -> bool:
        """False for a heading, a lead-in ("In short:") or a word or two."""
        return len(_WORD.findall(self.statement)) > _NO_CLAIM_WORDS and not self.statement.endswith(":")


class ClaimReader:
    """Collects pieces of an answer and gives out each claim as soon as what follows it has begun."""

    def __init__(self) -> None:
        self._text = ""

    def read(self, piece: str) -> list[Claim]:
        """The claims that this piece completes."""
        self._text += piece
        claims = list(_claims(self._text))
        is_open = bool(claims) and _OPEN_MARK.match(claims[-1].text)
        whole = len(claims) - (2 if is_open else 1)  # a mark may follow, that belongs to the claim before
        self._text = "".join(claim.text for claim in claims[max(whole, 0) :])
        return claims[: max(whole, 0)]

    def rest(self) -> list[Claim]:
        """What is left when nothing more comes."""
        text, self._text = self._text, ""
        return [claim for claim in _claims(text) if claim.text.strip()]


def _claims(text: str) -> Iterator[Claim]:
    """Claims, together the whole text; marks behind a sentence belong to it. The last one may be incomplete."""
    begun = 0
    for _, end in joined_sentences(text):
        if end <= begun:
            continue  # nothing but marks
        marks = _MARKS_BEHIND.match(text, end)
        last = marks.end() if marks else end
        yield Claim(text[begun:last])
        begun = last
    if begun < len(text):
        yield Claim(text[begun:])
