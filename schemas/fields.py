"""What of a document a search can filter by, and the form of it that a vector store's own indexes understand.

A document's fields are flat: ``title``, ``metadata.team``, ``metadata.author.name``; an array is all of its values. The
store is given two things to narrow a search by before a field's values decide: *terms*, a keyword for each value and
for each field that is there, and *ordinals*, numbers that order as the values of one field do, rounded to 40 bits.
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

Scalar = str | int | float | bool | None
Fields = Mapping[str, Sequence[Scalar]]

METADATA = "metadata"
ATTRIBUTES = ("document_id", "source", "media_type", "title", "version")
MAX_DEPTH = 16  # what is nested deeper in metadata cannot be filtered by

TERMS = "terms"
ORDINALS = "ordinals"
_MAX_TERMS = 256
_MAX_TERM = 120
_BITS = 40  # of a value; 13 more tell the fields apart, and 53 are what a double holds
_FIELDS = 2**13
_DATES = {"-": 2} | {digit: 4 + int(digit) for digit in "0123456789"}


class Document(Protocol):
    """Whatever carries what a document is filtered by."""

    @property
    def document_id(self) -> str:
        """The document's id."""

    @property
    def version(self) -> int:
        """Its version."""

    @property
    def title(self) -> str | None:
        """Its title."""

    @property
    def source(self) -> str | None:
        """Where it comes from."""

    @property
    def media_type(self) -> str:
        """Its media type."""


def fields_of(document: Document, metadata: Mapping[str, Any]) -> dict[str, list[Scalar]]:
    """Every field that is there with its values, in order; without any where it holds only objects or nothing.

    A field that is not set is not there; one that is null in the metadata is there, and null.

    >>> from schemas.records import Chunk, Revision
    >>> chunk = Chunk(document_id="a", version=1, chunk_index=0, chunk_count=1, text="t", start=0, end=1,
    ...               content_hash="")
    >>> fields_of(chunk, {"team": ["people", "it"], "by": {"name": None}})["metadata.by.name"]
    [None]
    """
    attributes = {name: getattr(document, name) for name in ATTRIBUTES}
    found: dict[str, list[Scalar]] = {name: [value] for name, value in attributes.items() if value is not None}
    for path, value in _leaves(metadata):
        found.setdefault(path, []).extend(value)
    return found


def indexed(fields: Fields) -> dict[str, list[str] | list[float]]:
    """What a chunk's point carries for the store's indexes.

    Nothing where there are too many values; what carries no terms is never narrowed away.
    """
    terms = {term(path) for path in fields} | {
        term(path, value) for path, values in fields.items() for value in values if not _is_nan(value)
    }
    if len(terms) > _MAX_TERMS:
        return {}
    ordinals = {ordinal(path, value) for path, values in fields.items() for value in values if is_ordered(value)}
    return {TERMS: sorted(terms), ORDINALS: sorted(ordinals)}


def term(path: str, *value: Scalar) -> str:
    """The keyword that says that a field is there, or that it has a value; equal numbers share theirs.

    >>> term("metadata.year", 2021.0)
    '["metadata.year", 2021]'
    """
    plain = [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
    text = json.dumps([path, *plain])
    return text if len(text) <= _MAX_TERM else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def is_ordered(value: Scalar) -> TypeGuard[str | int | float]:
    """Whether a value is smaller or greater than others: numbers among numbers, strings among strings."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and not _is_nan(value)


def ordinal(path: str, value: str | int | float) -> float:
    """Of two values of a field, both numbers or both strings, the smaller one never has the greater ordinal.

    >>> ordinal("date", "2024-01-31") < ordinal("date", "2024-02-01T08:00") < ordinal("date", "letter")
    True
    """
    return ordinals(path, value)[0] + (_of_string(value) if isinstance(value, str) else _of_number(value))


def ordinals(path: str, value: str | int | float) -> tuple[float, float]:
    """The least and the greatest ordinal that values of this kind can have in this field."""
    kind = "string" if isinstance(value, str) else "number"
    field = zlib.crc32(f"{kind} {path}".encode(errors="surrogatepass")) % _FIELDS
    return float(field << _BITS), float((field + 1 << _BITS) - 1)


def _of_number(value: int | float) -> int:
    """The first bits of the double, which order as doubles do once those of negative ones are turned over."""
    try:
        number = float(value) + 0.0  # -0.0 is 0
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    (bits,) = struct.unpack(">Q", struct.pack(">d", number))
    return int(bits ^ (2**64 - 1) if bits >> 63 else bits | 2**63) >> 64 - _BITS


def _of_string(text: str) -> int:
    """The first characters in base 16, made for dates; from the first one on that shares its digit, all is zero."""
    number = 0
    for place in range(_BITS // 4):
        character = text[place : place + 1]
        number = number * 16 + _rank(character)
        if character not in _DATES:
            return number << _BITS - 4 * (place + 1)
    return number


def _rank(character: str) -> int:
    """One of 16, never falling from a character to a greater one; those of dates have one of their own."""
    if not character:
        return 0
    if character in _DATES:
        return _DATES[character]
    return 1 if character < "-" else 3 if character < "0" else 14 if character < "a" else 15


def _leaves(metadata: Mapping[str, Any]) -> Iterator[tuple[str, list[Scalar]]]:
    waiting: list[tuple[str, Any, int]] = [(f"{METADATA}.{key}", value, 1) for key, value in metadata.items()]
    waiting.reverse()
    while waiting:
        path, value, depth = waiting.pop()
        yield path, [] if isinstance(value, dict | list) else [value]
        if isinstance(value, dict | list) and depth < MAX_DEPTH:
            inner = [(f"{path}.{key}", one) for key, one in value.items()] if isinstance(value, dict) else None
            waiting += [(*one, depth + 1) for one in reversed(inner or [(path, one) for one in value])]


def _is_nan(value: Scalar) -> bool:
    return isinstance(value, float) and math.isnan(value)
