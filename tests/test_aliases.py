"""Names of one thing in different documents, and names that must stay apart."""

import doctest
import itertools

import pytest

from processors import aliases
from processors.aliases import alias, keys
from processors.dedup import folded
from schemas.ids import normalised_name

SAME = [
    ("ORG", "U.S. Navy", "the United States Navy", "spelling"),
    ("LOC", "the USA", "United States of America", "spelling"),
    ("EVENT", "World War II", "World War Two", "spelling"),
    ("ORG", "BBC Two", "BBC2", "spelling"),
    ("PERSON", "Nikólaos Aliágas", "Νικόλαος Αλιάγας", "spelling"),
    ("PERSON", "Herbert Grönemeyer", "Herbert Groenemeyer", "spelling"),
    ("ORG", "Schell Leather Goods", "Schell Leather Goods Company", "legal form"),
    ("PERSON", "Miyamoto Shigeru", "Shigeru Miyamoto", "order"),
    ("PERSON", "Andriy Vitoshynskyi", "Андрій Вітошинський", "sound"),
    ("PERSON", "J. H. Dearle", "John Henry Dearle", "initials"),
    ("ORG", "IFFHS", "International Federation of Football History & Statistics", "acronym"),
    ("ORG", "BBC", "Bethany Bible College", "short acronym"),
    ("PERSON", "Luis Roche", "Luis Armando Roche", "middle name"),
]
APART = [
    ("LOC", "Korea", "South Korea"),
    ("PERSON", "Smith", "John Smith"),
    ("PERSON", "Müller", "Mueller"),
    ("PERSON", "J. Smith", "John Smith"),
    ("PERSON", "Paul Desmarais Jr.", "Paul Desmarais Sr."),
    ("PERSON", "Henry II", "Henry III"),
    ("PERSON", "Leopold I", "Leopold II"),
    ("PERSON", "John F. Kennedy", "John Robert Kennedy"),
    ("ORG", "Yale College", "Yale University"),
    ("ORG", "University of Washington", "Washington University"),
    ("ORG", "American Public Media", "American Public Media Group"),
    ("EVENT", "Olympics 2008", "Olympics 2012"),
    ("LOC", "New York", "York"),
    ("LOC", "WHO", "World Health Organization"),
    ("DATE", "May 5", "May five"),
]


def entity(type_: str, text: str) -> str:
    return folded(normalised_name(text), type_)


def test_the_examples_of_the_module_hold() -> None:
    assert doctest.testmod(aliases).failed == 0


@pytest.mark.parametrize(("type_", "one", "other", "reason"), SAME)
def test_names_of_one_thing_meet_and_say_why(type_: str, one: str, other: str, reason: str) -> None:
    first, second = entity(type_, one), entity(type_, other)
    assert keys(type_, first) & keys(type_, second)
    for pair in ((first, second), (second, first)):
        found = alias(type_, *pair)
        assert found is not None
        assert (found.reason, found.score) == (reason, aliases.SCORES[found.reason])


@pytest.mark.parametrize(("type_", "one", "other"), APART)
def test_names_of_two_things(type_: str, one: str, other: str) -> None:
    first, second = entity(type_, one), entity(type_, other)
    assert not (keys(type_, first) & keys(type_, second) and alias(type_, first, second))


def test_whatever_is_an_alias_shares_a_key() -> None:
    """Or the store would never ask."""
    names = {(type_, entity(type_, text)) for type_, *texts in (*(row[:3] for row in SAME), *APART) for text in texts}
    for (type_, one), (other_type, other) in itertools.combinations(sorted(names), 2):
        if type_ == other_type and alias(type_, one, other):
            assert keys(type_, one) & keys(type_, other), (one, other)


def test_no_name_has_more_than_two_keys() -> None:
    names = [(type_, entity(type_, text)) for type_, *texts in (row[:3] for row in SAME) for text in texts]
    assert max(len(keys(*name)) for name in names) == 2
    assert keys("ORG", "") == set()
