"""The rules that find names, what they leave alone, and the laws of a processor."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.extract import Found, RuleExtractor
from schemas.ids import entity_id, normalised_name

EXTRACTOR = RuleExtractor(max_mentions=64)
ENGLISH = (
    "Neil Armstrong walked on the Moon on 20 July 1969. He worked for NASA with Dr. Strange of the University of "
    "Michigan in the U.S. and sold it to Acme Rockets Inc. near Lake Superior."
)
GERMAN = (
    "Am 21. Juli 1969 traf Bundeskanzlerin Angela Merkel die Siemens AG in Berlin. Die Stadt war schön, und der Mann "
    "kaufte ein Haus mit Garten. Später sprach Merkel auch mit der NATO und dem Konzern BASF."
)


def found(text: str) -> Found:
    (only,) = EXTRACTOR.extract([text])
    return only


def names(text: str) -> dict[str, str]:
    return {mention.text: mention.type for mention in found(text).mentions}


def test_english_names() -> None:
    assert names(ENGLISH) == {
        "Neil Armstrong": "MISC",
        "Moon": "MISC",
        "20 July 1969": "DATE",
        "NASA": "MISC",
        "Strange": "PERSON",
        "University of Michigan": "ORG",
        "U.S.": "MISC",
        "Acme Rockets Inc.": "ORG",
        "Lake Superior": "LOC",
    }


def test_german_names_among_german_nouns() -> None:
    assert names(GERMAN) == {
        "21. Juli 1969": "DATE",
        "Angela Merkel": "PERSON",
        "Siemens AG": "ORG",
        "Berlin": "MISC",
        "Merkel": "PERSON",
        "NATO": "MISC",
        "BASF": "MISC",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was Ludwig van Beethoven who wrote it.", {"Ludwig van Beethoven": "PERSON"}),
        ("He met J. K. Rowling there.", {"J. K. Rowling": "PERSON"}),
        ("It is made by Johnson & Johnson.", {"Johnson & Johnson": "MISC"}),
        ("They use GitHub and iText.", {"GitHub": "MISC"}),
        ("Yesterday the broker of Kafka's cluster failed.", {"Kafka": "MISC"}),
        ("He spoke to President Obama. Then Obama left.", {"Obama": "PERSON"}),
        ("The President of Iran met the King of Norway.", {"Iran": "MISC", "Norway": "MISC"}),
        ("It is in Lisbon. Lisbon is nice.", {"Lisbon": "MISC"}),
        ("since 1984 and on May 5, 2001 and 2020-01-31", {"1984": "DATE", "May 5, 2001": "DATE", "2020-01-31": "DATE"}),
    ],
)
def test_name(text: str, expected: dict[str, str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Brokers restart. However, they recover.",  # first words
        "He came on Monday in March and spoke English.",
        "# Neil Armstrong\n\nplain words",
        "See https://Example.Com/Neil_Armstrong or mail Neil.Armstrong@Example.com now.",
        "Call `Neil Armstrong` or\n```\nNeil Armstrong\n```\nfor it.",
        "a [link](Neil-Armstrong) and <Neil> and SNAKE_CASE and camel_Case",
        "there were 42 of 1000 in 37 rows",
        "WE SELL EVERYTHING FOR LESS",
        "Simple Rules Find Proper Names Among Capital Words Somehow",
        "Der Mann und die Frau kauften ein Haus mit Garten, und das ist die Wahrheit.",
    ],
)
def test_no_name(text: str) -> None:
    assert names(text) == {}


def test_mentions_say_where_they_stand() -> None:
    for text in (ENGLISH, GERMAN):
        mentions = found(text).mentions
        for mention in mentions:
            assert text[mention.start : mention.end] == mention.text
            assert mention.name == normalised_name(mention.text)
        assert all(before.end <= after.start for before, after in pairwise(mentions))


def test_entities_of_one_sentence_are_related() -> None:
    text = "In 1969 Neil Armstrong worked for NASA. Then Buzz Aldrin came. Later NASA paid Neil Armstrong."
    armstrong, nasa = entity_id("MISC", "neil armstrong"), entity_id("MISC", "nasa")
    (relation,) = found(text).relations
    assert (relation.source, relation.target) == (min(armstrong, nasa), max(armstrong, nasa))
    assert relation.type == "RELATED_TO"
    assert relation.evidence == "In 1969 Neil Armstrong worked for NASA."


def test_sentence_goes_on_after_an_abbreviation() -> None:
    assert len(found("It was Dr. Strange who met Mr. Bean of Acme Inc. in Paris.").relations) == 6
    assert found("He saw Paris. She saw London.").relations == ()


def test_mentions_and_relations_are_bounded() -> None:
    text = "We met " + " and ".join(f"Mister{letter} Smith{letter}" for letter in "abcdefghijklmnopqrstuvwxyz") + "."
    assert len(RuleExtractor(max_mentions=10).extract([text])[0].mentions) == 10
    relations = found(text).relations
    assert len(relations) == 32
    assert all(len(relation.evidence) <= 300 for relation in relations)


def test_batch_equals_one_by_one() -> None:
    texts = [ENGLISH, "", GERMAN, "plain words"]
    assert EXTRACTOR.extract(texts) == [found(text) for text in texts]
    assert EXTRACTOR.extract(texts) == EXTRACTOR.extract(texts)
    assert EXTRACTOR.extract([]) == []


PIECES = st.sampled_from([
    "A", "A. ", "Foo ", "foo ", "von der ", "`", "```\n", "# ", "<", "](", "@", "a@b", "www.", "1. ", "21. Juli ",
    "\n", "\n\n", "- ", "|", '"', "'s ", "_", "\0", "NASA ", "King ", "in ", "Inc.", "ß", "İ", "ǅ", "中", "🚀",
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=30).map("".join))
def test_any_text_gives_valid_mentions(text: str) -> None:
    for mention in found(text).mentions:
        assert text[mention.start : mention.end] == mention.text
        assert mention.name


@pytest.mark.parametrize(
    "piece",
    [
        "A",
        "A. ",
        "King ",
        "of ",
        "A of the ",
        "`",
        "```\n",
        "<a ",
        "[](",
        "a@",
        ".",
        "\n ",
        "1. ",
        "in Berlin ",
        "a_",
        " ",
    ],
)
def test_time_is_linear(piece: str) -> None:
    started = time.process_time()
    RuleExtractor(max_mentions=10**6).extract([(piece * 100_000)[:100_000]])
    assert time.process_time() - started < 5
