"""The rules that find names, what they leave alone, and the laws of a processor."""

import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import build
from processors.batching import in_halves
from processors.dedup import folded
from processors.errors import UnavailableError
from processors.extract import Extractor, Found, Phase
from processors.ner import NamedEntityRecogniser, Span, recogniser
from processors.ner.rules import RuleRecogniser
from processors.relations import classifier
from processors.relations.degrading import Degrading
from schemas.ids import entity_id, normalised_name
from schemas.records import Mention, Relation
from schemas.settings import Settings, settings_from_environment
from schemas.vocabulary import RELATION_TYPES

RULES = RuleRecogniser()


def by_rules(*, max_mentions: int) -> Extractor:
    return Extractor(RULES, fallback=RULES, relations=None, max_mentions=max_mentions)


EXTRACTOR = by_rules(max_mentions=64)
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
            assert mention.name.split()[-1] in folded(normalised_name(text), mention.type)
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
    assert len(by_rules(max_mentions=10).extract([text])[0].mentions) == 10
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
    by_rules(max_mentions=10**6).extract([(piece * 100_000)[:100_000]])
    assert time.process_time() - started < 5


class Watch:
    """Notes what an extraction says of itself."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.counts = (0, 0)
        self.failures: list[str] = []
        self.pipeline = ""
        self.setup: Mapping[str, Phase] = {}

    def chosen(self, pipeline: str, phases: Mapping[str, Phase]) -> None:
        self.pipeline = pipeline
        self.setup = phases

    def phase(self, name: str, seconds: float, *, pipeline: str) -> None:
        assert seconds > 0
        self.phases.append(name)

    def found(self, found: Sequence[Found]) -> None:
        self.counts = (sum(len(one.mentions) for one in found), sum(len(one.relations) for one in found))

    def failed(self, phase: str, error: Exception) -> None:
        self.failures.append(f"{phase}: {error}")


class Down:
    """A phase whose device or server does not answer."""

    name = "down"

    def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        raise UnavailableError("no device")

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[tuple[Relation, ...]]:
        raise UnavailableError("no server")


class FirstTwo:
    """Says that the first mention leads the second."""

    name = "first-two"

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[tuple[Relation, ...]]:
        ids = [[entity_id(mention.type, mention.name) for mention in of] for of in mentions]
        return [(Relation(source=of[0], target=of[1], type="LEADS", confidence=0.9),) for of in ids]


def test_what_is_typed_is_not_said_again_untyped() -> None:
    watch = Watch()
    extractor = Extractor(RULES, fallback=RULES, relations=Degrading(FirstTwo(), None), max_mentions=64, observe=watch)
    (one,) = extractor.extract(["Dr. Strange met Acme Rockets Inc. and Lake Superior Ltd. there."])
    assert [relation.type for relation in one.relations] == ["LEADS", "RELATED_TO", "RELATED_TO"]
    pairs = [frozenset((relation.source, relation.target)) for relation in one.relations]
    assert len(set(pairs)) == 3
    assert one.pipeline == "rules+first-two"
    assert (watch.phases, watch.counts, watch.failures) == (["ner", "dedup", "relations"], (3, 3), [])


def test_a_phase_that_is_down_loses_no_text() -> None:
    watch = Watch()
    down = Down()
    extractor = Extractor(down, fallback=RULES, relations=Degrading(down, down), max_mentions=64, observe=watch)
    assert [(of.mentions, of.relations) for of in extractor.extract([ENGLISH, GERMAN])] == [
        (of.mentions, of.relations) for of in EXTRACTOR.extract([ENGLISH, GERMAN])
    ]
    assert extractor.extract([ENGLISH])[0].pipeline == "rules+none"
    assert watch.failures[:2] == ["ner: no device", "relations: no server"]


def test_a_damaged_model_of_names_leaves_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()

    def damaged(**options: object) -> None:
        raise ValueError("ner.safetensors is damaged")

    monkeypatch.setattr(build, "NamedEntityRecogniser", damaged)
    extractor = build.build_extractor(Settings(), observe=watch)
    assert extractor.extract([ENGLISH])[0].pipeline.startswith("rules+aegis-relations")
    assert watch.failures == [f"{phase}: ner.safetensors is damaged" for phase in ("load", "ner")]


def test_the_model_of_names_is_the_default() -> None:
    (one,) = build.build_extractor(Settings()).extract([ENGLISH])
    assert one.pipeline.startswith("aegis-ner")
    types = {mention.text: mention.type for mention in one.mentions}
    assert types["Neil Armstrong"] == "PERSON"
    assert not any(name.isdigit() for name in types), "numbers are attributes, never entities"


def test_names_in_code_and_links_are_none() -> None:
    text = "Angela Merkel spoke.\n\n```\nAngela Merkel = Berlin()\n```\n[London](https://Paris/Rome) and `Vienna`."
    (one,) = build.build_extractor(Settings()).extract([text])
    assert not {mention.text for mention in one.mentions} & {"Berlin", "Paris", "Rome", "Vienna"}
    assert all(mention.start < 20 or mention.start > text.index("[London") for mention in one.mentions)


def test_typed_relations_without_a_language_model() -> None:
    text = "Ada Lovelace was born in London on 10 December 1815. Microsoft was founded by Bill Gates in Albuquerque."
    (one,) = build.build_extractor(Settings()).extract([text])
    types = {relation.type for relation in one.relations}
    assert types & {"BORN_IN", "BORN_ON", "FOUNDED"}
    assert types <= set(RELATION_TYPES)
    ids = {entity_id(mention.type, mention.name) for mention in one.mentions}
    assert all({relation.source, relation.target} <= ids and relation.evidence in text for relation in one.relations)


def test_a_language_model_that_is_down_leaves_the_classifier() -> None:
    watch = Watch()
    nobody = {"url": "http://127.0.0.1:9/v1", "model": "m", "attempts": 1, "timeout": 1.0}
    settings = Settings(extraction={"relations": "llm"}, llm=nobody)
    (one,) = build.build_extractor(settings, observe=watch).extract(["Ada Lovelace was born in London in 1815."])
    assert one.pipeline.startswith("aegis-ner")
    assert "llm" not in one.pipeline
    assert not one.pipeline.endswith("none")
    assert len(watch.failures) == 1
    with pytest.raises(ValueError, match="AEGIS_LLM__URL"):
        build.build_extractor(Settings(extraction={"relations": "llm"}))


def test_renamed_weights_leave_the_rules_and_untyped_relations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, weights in ((recogniser, "ner.safetensors"), (classifier, "relations.safetensors")):
        folder = tmp_path / weights
        shutil.copytree(module.PACKAGED, folder)
        (folder / weights).rename(folder / "elsewhere")
        name = "NamedEntityRecogniser" if module is recogniser else "ClassifiedRelations"
        monkeypatch.setattr(build, name, partial(getattr(build, name), folder))
    watch = Watch()
    (one,) = build.build_extractor(Settings(), observe=watch).extract([ENGLISH])
    assert one.pipeline == "rules+none"
    assert one.mentions == found(ENGLISH).mentions
    assert list(one.degraded) == ["ner", "relations"]
    assert all(phase.missing for phase in watch.setup.values())
    assert watch.failures[0].startswith("load: ")


@pytest.mark.parametrize("flag", ["true", "1"])
def test_the_flags_choose_the_pipeline(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_PIPELINE", "llm_single_pass")
    with pytest.raises(ValueError, match="EXTRACTION__PIPELINE=llm_single_pass needs AEGIS_LLM__URL"):
        build.build_extractor(settings_from_environment())
    monkeypatch.setenv("ENABLE_LEGACY_EXTRACTION", flag)
    watch = Watch()
    (one,) = build.build_extractor(settings_from_environment(), observe=watch).extract([ENGLISH])
    assert (one.pipeline, one.degraded, watch.pipeline) == ("rules+none", {}, "legacy")


def test_another_extraction_is_another_fingerprint() -> None:
    llm = {"url": "http://127.0.0.1:9", "model": "m"}
    kinds: list[dict[str, Any]] = [
        {},
        {"extraction": {"names": "spacy:en_core_web_trf"}},
        {"extraction": {"relations": "llm"}, "llm": llm},
        {"extraction": {"relations": "llm"}, "llm": {**llm, "model": "other"}},
        {"extraction": {"pipeline": "llm_single_pass"}, "llm": llm},
        {"extraction": {"legacy": True}},
    ]
    prints = [build.fingerprint(Settings.model_validate(kind)) for kind in kinds]
    assert len(set(prints)) == len(prints)
    by_rules = Settings(extraction={"names": "rules", "relations": "none"})
    assert build.fingerprint(by_rules) == prints[-1], "the way back is nothing else"
    assert build.fingerprint(Settings(llm=llm)) == prints[0], "a language model that nobody asks changes nothing"


def test_what_takes_too_much_memory_is_halved() -> None:
    sizes = []

    def run(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise MemoryError("no room")
        return [-item for item in items]

    assert in_halves(run, range(7)) == [-item for item in range(7)]
    assert max(sizes[1:]) == 4
    with pytest.raises(UnavailableError, match="no room"):
        in_halves(lambda items: (_ for _ in ()).throw(MemoryError("no room")), [1, 2])


def test_batches_of_any_size_find_the_same() -> None:
    texts = [ENGLISH, GERMAN, "", ENGLISH * 4]
    small, large = (NamedEntityRecogniser(max_batch_tokens=size) for size in (64, 1024))
    assert [[(span.start, span.type) for span in of] for of in small.recognise(texts)] == [
        [(span.start, span.type) for span in of] for of in large.recognise(texts)
    ]
