"""Filters over a document's fields, in MongoDB's words: read from JSON, decided on fields.

This is what a filter means, for every store and for the graph; what a store can do of it by itself only narrows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ge, gt, le, lt
from typing import Any, Literal, NoReturn, TypeGuard

from schemas.fields import ATTRIBUTES, METADATA, Fields, Scalar, is_ordered

MAX_DEPTH = 8
MAX_CLAUSES = 100
MAX_OPERANDS = 1000
MAX_OPERAND = 2048
MAX_PATH = 256

Comparison = Literal["$gt", "$gte", "$lt", "$lte"]
_COMPARE: Mapping[Comparison, Callable[[Any, Any], bool]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}
_COMPLEMENTS = {"$ne": "$eq", "$nin": "$in"}
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$not")
_FIELDS = f"{', '.join(ATTRIBUTES)}, and {METADATA}.<key>"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of the values; null is also what a field has that is not there."""

    place: str
    path: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the field's values is smaller or greater than a bound of its own kind, number or string."""

    place: str
    path: str
    comparison: Comparison
    bound: str | int | float


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, be it null."""

    place: str
    path: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    place: str
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    place: str
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    place: str
    part: "Filter"


Filter = OneOf | Compared | Exists | AllOf | AnyOf | Not


def parse(value: object) -> Filter:
    """A filter from JSON, such as ``{"metadata.year": {"$gte": 2020}, "$not": {"source": "wiki"}}``.

    Raises:
        ValueError: What is wrong, where, and what is allowed there.
    """
    return _Reader().filter(value, "", 1)


def matches(filter_: Filter, fields: Fields) -> bool:
    """Whether a document with these fields passes."""
    match filter_:
        case AllOf(_, parts):
            return all(matches(part, fields) for part in parts)
        case AnyOf(_, parts):
            return any(matches(part, fields) for part in parts)
        case Not(_, part):
            return not matches(part, fields)
        case Exists(_, path):
            return path in fields
        case OneOf(_, path, values):
            return any(_equal(one, value) for one in fields.get(path, [None]) for value in values)
        case Compared(_, path, comparison, bound):
            return any(_holds(comparison, one, bound) for one in fields.get(path, ()))


def excluding(filter_: Filter, fields: Fields) -> str | None:
    """Where in the filter the clause stands that these fields do not pass; None if they pass."""
    if matches(filter_, fields):
        return None
    if isinstance(filter_, AllOf):
        return next(place for part in filter_.parts if (place := excluding(part, fields)) is not None)
    return filter_.place


def prefixed(filter_: Filter, path: str, prefix: str) -> Filter:
    """The filter for documents that all have ``prefix`` before what it takes for their values of the field."""
    match filter_:
        case OneOf(_, of, values) if of == path:
            return replace(filter_, values=tuple(prefix + one if isinstance(one, str) else one for one in values))
        case Compared(_, of, _, str(bound)) if of == path:
            return replace(filter_, bound=prefix + bound)
        case AllOf(_, parts) | AnyOf(_, parts):
            return replace(filter_, parts=tuple(prefixed(part, path, prefix) for part in parts))
        case Not(_, part):
            return replace(filter_, part=prefixed(part, path, prefix))
        case _:
            return filter_


def _equal(one: Scalar, other: Scalar) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _holds(comparison: Comparison, one: Scalar, bound: str | int | float) -> bool:
    return is_ordered(one) and isinstance(one, str) == isinstance(bound, str) and _COMPARE[comparison](one, bound)


class _Reader:
    """Reads one filter, and counts."""

    def __init__(self) -> None:
        self._clauses = 0
        self._operands = 0

    def filter(self, value: object, place: str, depth: int) -> Filter:
        self._count(place)
        if depth > MAX_DEPTH:
            _refuse(place, f"is nested more than {MAX_DEPTH} deep")
        if not isinstance(value, Mapping):
            _refuse(place, f"must be an object of fields ({_FIELDS}) or $and, $or, $not")
        return _all_of(place, [self._entry(key, one, _join(place, key), depth) for key, one in value.items()])

    def _entry(self, key: str, value: object, place: str, depth: int) -> Filter:
        match key:
            case "$and":
                return AllOf(place, self._parts(value, place, depth))
            case "$or":
                return AnyOf(place, self._parts(value, place, depth))
            case "$not":
                return Not(place, self.filter(value, place, depth + 1))
        if key.startswith("$"):
            _refuse(place, "is no operator here; allowed are $and, $or, $not, and within a field " + _list(_OPERATORS))
        if key not in ATTRIBUTES and not key.startswith(f"{METADATA}."):
            _refuse(place, f"is no field; fields are {_FIELDS}")
        if len(key) > MAX_PATH:
            _refuse(place, f"is longer than {MAX_PATH} characters")
        return self._condition(key, value, place, depth)

    def _parts(self, value: object, place: str, depth: int) -> tuple[Filter, ...]:
        if not _is_list(value) or not value:
            _refuse(place, "must be a list of at least one filter")
        return tuple(self.filter(one, _join(place, str(index)), depth + 1) for index, one in enumerate(value))

    def _condition(self, path: str, value: object, place: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            _refuse(place, f"is nested more than {MAX_DEPTH} deep")
        if not isinstance(value, Mapping):
            return self._clause(path, "$eq", value, place, depth)
        if not value:
            _refuse(place, f"must be a value, or an object of {_list(_OPERATORS)}")
        return _all_of(
            place, [self._clause(path, name, operand, _join(place, name), depth) for name, operand in value.items()]
        )

    def _clause(self, path: str, operator: str, operand: object, place: str, depth: int) -> Filter:
        if operator == "$not":
            return Not(place, self._condition(path, operand, place, depth + 1))
        self._count(place)
        if operator in _COMPLEMENTS:
            return Not(place, self._clause(path, _COMPLEMENTS[operator], operand, place, depth))
        match operator:
            case "$eq":
                return OneOf(place, path, (self._scalar(operand, place),))
            case "$in":
                return OneOf(place, path, self._scalars(operand, place))
            case "$gt" | "$gte" | "$lt" | "$lte":
                return Compared(place, path, operator, self._bound(operand, place))
            case "$exists":
                if not isinstance(operand, bool):
                    _refuse(place, "must be true or false")
                return Exists(place, path) if operand else Not(place, Exists(place, path))
        _refuse(place, f"is no operator; allowed are {_list(_OPERATORS)}")

    def _count(self, place: str) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            _refuse(place, f"is one clause too many; at most {MAX_CLAUSES} are allowed")

    def _scalars(self, operand: object, place: str) -> tuple[Scalar, ...]:
        if not _is_list(operand):
            _refuse(place, "must be a list of strings, numbers, booleans or nulls")
        return tuple(self._scalar(one, _join(place, str(index))) for index, one in enumerate(operand))

    def _scalar(self, operand: object, place: str) -> Scalar:
        self._operands += 1
        if self._operands > MAX_OPERANDS:
            _refuse(place, f"is one value too many; at most {MAX_OPERANDS} are allowed")
        if operand is not None and not isinstance(operand, str | int | float | bool):
            _refuse(place, "must be a string, a number, a boolean or null")
        if isinstance(operand, str) and len(operand) > MAX_OPERAND:
            _refuse(place, f"is longer than {MAX_OPERAND} characters")
        if isinstance(operand, float) and not math.isfinite(operand):
            _refuse(place, "must be a finite number")
        return operand

    def _bound(self, operand: object, place: str) -> str | int | float:
        bound = self._scalar(operand, place)
        if bound is None or isinstance(bound, bool):
            _refuse(place, "must be a number or a string")
        return bound


def _all_of(place: str, parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else AllOf(place, tuple(parts))


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _join(place: str, part: str) -> str:
    return f"{place}.{part}" if place else part


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _refuse(place: str, why: str) -> NoReturn:
    raise ValueError(f"{place[:MAX_PATH] or 'the filter'} {why}")
