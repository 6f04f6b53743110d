"""One name for one thing: spellings, family names, initials; and what must stay apart."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import dedup
from processors.dedup import deduplicated, folded
from schemas.ids import normalised_name
from schemas.records import Mention

NAMES = st.lists(
    st.tuples(
        st.sampled_from(["Ada Lovelace", "Lovelace", "Ada", "Ada King", "UN", "United Nations", "Müller", "St. Gall"]),
        st.sampled_from(["PERSON", "ORG", "LOC"]),
    ),
    max_size=8,
)  # fmt: skip


def mention(text: str, type_: str) -> Mention:
    return Mention(start=0, end=len(text), text=text, name=normalised_name(text), type=type_)


def resolved(*mentions: tuple[str, str]) -> list[tuple[str, str]]:
    return [(one.type, one.name) for one in deduplicated([mention(*one) for one in mentions])]


def test_the_examples_of_the_module_hold() -> None:
    assert doctest.testmod(dedup).failed == 0


@pytest.mark.parametrize(
    ("one", "other", "type_"),
    [
        ("Haleakalā", "haleakala", "LOC"),
        ("U.S. Navy", "the US Navy's", "ORG"),
        ("Saint-Petersburg", "St. Petersburg", "LOC"),
        ("Barry University 's School", "Barry University School", "ORG"),
        ("Dr. Ada Lovelace", "Ada Lovelace", "PERSON"),
        ("Jeanne-Thérèse", "Jeanne Thérèse", "PERSON"),
        ("Morris & Co", "Morris and Co.", "ORG"),
    ],
)
def test_spellings_of_one_name(one: str, other: str, type_: str) -> None:
    assert folded(normalised_name(one), type_) == folded(normalised_name(other), type_)


@pytest.mark.parametrize(
    ("one", "other", "type_"),
    [
        ("Paul Desmarais Jr.", "Paul Desmarais Sr.", "PERSON"),
        ("World War I", "World War II", "EVENT"),
        ("Korea", "South Korea", "LOC"),
        ("New York", "York", "LOC"),
        ("Yale College", "Yale University", "ORG"),
        ("University of Washington", "Washington University", "ORG"),
        ("Olympics 2008", "Olympics 2012", "EVENT"),
    ],
)
def test_names_of_two_things(one: str, other: str, type_: str) -> None:
    (first, second) = resolved((one, type_), (other, type_))
    assert first != second


def test_a_family_name_is_the_one_person_it_can_be() -> None:
    assert resolved(("Charles Babbage", "PERSON"), ("Babbage", "PERSON"), ("Ada", "PERSON"))[1:] == [
        ("PERSON", "charles babbage"),
        ("PERSON", "ada"),
    ]
    two = resolved(
        ("Ada Lovelace", "PERSON"), ("William Lovelace", "PERSON"), ("Lovelace", "PERSON"), ("Ada", "PERSON")
    )
    assert two[2:] == [("PERSON", "lovelace"), ("PERSON", "ada lovelace")]
    assert resolved(("Léopold I", "PERSON"), ("Léopold", "PERSON"))[1] == ("PERSON", "leopold")


def test_initials_are_the_one_name_they_can_be() -> None:
    assert resolved(("United Nations", "ORG"), ("UN", "LOC"), ("U.N.", "ORG"))[1:] == [("ORG", "united nations")] * 2
    assert resolved(("University of Nebraska", "ORG"), ("United Nations", "ORG"), ("UN", "ORG"))[2] == ("ORG", "un")
    assert resolved(("United Nations", "ORG"), ("Un", "LOC"))[1] == ("LOC", "un"), "a word is no acronym"


@given(NAMES)
def test_the_order_of_mentions_decides_nothing_and_doing_it_again_changes_nothing(names: list[tuple[str, str]]) -> None:
    mentions = [mention(*one) for one in names]
    once = deduplicated(mentions)
    assert deduplicated(mentions[::-1])[::-1] == once
    assert all(one.name for one in once)
    assert [one.text for one in once] == [one.text for one in mentions]
