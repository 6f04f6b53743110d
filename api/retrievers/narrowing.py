"""What of a filter a store's own indexes can decide: never fewer chunks than the filter lets through.

A term decides equality for good; an ordinal rounds, so it may only narrow and says nothing below a negation. What is
left to decide is decided on the fields themselves (``api.retrievers.hits.passing``).
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from processors.filters import AllOf, AnyOf, Compared, Exists, Filter, Not, OneOf
from schemas.fields import ORDINALS, TERMS, ordinal, ordinals, term

Condition = TypeVar("Condition")


class Dialect(Protocol[Condition]):
    """How a store's client writes conditions."""

    def one_of(self, key: str, values: Sequence[str]) -> Condition:
        """The keyword field has one of the values."""

    def between(self, key: str, least: float, most: float) -> Condition:
        """One of the field's numbers lies there, the bounds included."""

    def is_empty(self, key: str) -> Condition:
        """The field is not there."""

    def all_of(self, conditions: Sequence[Condition]) -> Condition:
        """Every condition holds."""

    def any_of(self, conditions: Sequence[Condition]) -> Condition:
        """At least one condition holds."""

    def none_of(self, conditions: Sequence[Condition]) -> Condition:
        """No condition holds."""


def narrowed(filter_: Filter, dialect: Dialect[Condition]) -> Condition | None:
    """A condition that every chunk meets that passes the filter; None where nothing narrows it.

    A chunk without terms meets it always: one written before there were any, or one with too many values.
    """
    condition = _narrowed(filter_, dialect, holds=True)
    return None if condition is None else dialect.any_of([condition, dialect.is_empty(TERMS)])


def _narrowed(filter_: Filter, dialect: Dialect[Condition], *, holds: bool) -> Condition | None:
    match filter_:
        case Not(_, part):
            return _narrowed(part, dialect, holds=not holds)
        case AllOf(_, parts) | AnyOf(_, parts):
            conditions = [_narrowed(part, dialect, holds=holds) for part in parts]
            known = [condition for condition in conditions if condition is not None]
            if isinstance(filter_, AllOf) == holds:
                return dialect.all_of(known) if known else None
            return dialect.any_of(known) if known and len(known) == len(conditions) else None
        case Compared():
            return _between(filter_, dialect) if holds else None
        case OneOf() | Exists():
            condition = _has(filter_, dialect)
            return condition if holds else dialect.none_of([condition])


def _has(filter_: OneOf | Exists, dialect: Dialect[Condition]) -> Condition:
    there = dialect.one_of(TERMS, [term(filter_.path)])
    if isinstance(filter_, Exists):
        return there
    has = dialect.one_of(TERMS, [term(filter_.path, value) for value in filter_.values])
    return dialect.any_of([has, dialect.none_of([there])]) if None in filter_.values else has


def _between(filter_: Compared, dialect: Dialect[Condition]) -> Condition:
    least, most = ordinals(filter_.path, filter_.bound)
    bound = ordinal(filter_.path, filter_.bound)
    if filter_.comparison in ("$gt", "$gte"):
        return dialect.between(ORDINALS, bound, most)
    return dialect.between(ORDINALS, least, bound)
