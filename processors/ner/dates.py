"""Dates by rule, in English and German: calendar dates, months, years, spans of years, decades and centuries."""

import re
from collections.abc import Iterator

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December|Januar|Jänner|Februar|"
    r"März|Mai|Juni|Juli|Oktober|Dezember|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Okt|Dez)\b\.?)"
)
_DAY = r"(?:[12]\d|3[01]|0?[1-9])"
_YEAR = r"(?:1\d{3}|20\d{2})"
_CENTURY = r"(?:[1-9]|1\d|2[01])"
_DATE = re.compile(
    rf"\b{_DAY}(?:st|nd|rd|th|\.)? (?:of )?{_MONTH}(?:,? {_YEAR}\b)?(?!\w)"
    rf"|\b{_MONTH} {_DAY}(?:st|nd|rd|th)?\b(?: ?, ?{_YEAR}\b| {_YEAR}\b)?(?![:.]\d)"
    rf"|\b{_MONTH},?(?: of)? {_YEAR}\b"
    rf"|\b{_YEAR}-(?:0\d|1[0-2])-(?:[0-2]\d|3[01])\b|\b{_DAY}\. ?(?:1[0-2]|0?[1-9])\. ?{_YEAR}\b"
    rf"|\b{_CENTURY}(?:st|nd|rd|th)[ -][Cc]entury\b|\b{_CENTURY}\. Jahrhunderts?\b"
    r"|\b(?:[Tt]he |[Dd]en |[Dd]er )?(?:1\d|20)\d0(?:s|er(?:[ -]Jahren?)?)\b"
    # A year alone: no amount, version, time, or part of a name or number.
    r"|(?<![\w$€£#+/:.,-])(?<!no )(?<!No\. )(?:1[5-9]\d\d|20[0-4]\d)(?![\w%°€$:/])(?![.,-]\d)(?!-[A-Za-z])"
)


def dates(text: str) -> Iterator[tuple[int, int]]:
    """Places of dates in a text."""
    for date in _DATE.finditer(text):
        yield date.span()
