"""spaCy pipelines as recognisers: a tiny one, trained here, and what is not one."""

import random
import warnings
from pathlib import Path

import pytest

from processors import build
from processors.ner import other_labels
from processors.ner.spacy import SpacyRecogniser
from schemas.settings import Settings
from tests.test_extract import Watch

spacy = pytest.importorskip("spacy", reason="it comes with `make full`", exc_type=ImportError)

SENTENCES = {
    "en": (
        "{person} of {org} paid {money} in {place}.",
        {"person": "PERSON", "org": "ORG", "money": "MONEY", "place": "GPE"},
    ),
    "de": ("{person} kam von {org} nach {place}.", {"person": "PER", "org": "ORG", "place": "LOC"}),
}
DATED = " That was on 20 July 1969."
NAMES = {
    "person": ("Ada Lovelace", "Grace Hopper", "Alan Turing"),
    "org": ("Siemens", "Acme", "Initech"),
    "money": ("$ 500", "$ 20", "$ 3"),
    "place": ("Berlin", "Paris", "London"),
}


def trained(language: str, folder: Path) -> Path:
    """A pipeline that knows the names above where they stand in the sentence above, and no date."""
    from spacy.training import Example

    random.seed(3)
    pipeline = spacy.blank(language)
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("ner")
    pattern, labels = SENTENCES[language]
    examples = []
    for _ in range(24):
        names = {kind: random.choice(NAMES[kind]) for kind in labels}
        text = pattern.format(**names) + random.choice(["", DATED])
        spans = [(text.index(name), text.index(name) + len(name), labels[kind]) for kind, name in names.items()]
        examples.append(Example.from_dict(pipeline.make_doc(text), {"entities": spans}))
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(24):
        pipeline.update(examples, sgd=optimizer)
    pipeline.meta["name"], pipeline.meta["version"] = "tiny", "1.2.3"
    pipeline.to_disk(folder / language)
    return folder / language


@pytest.fixture(scope="module", params=["en", "de"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trained(request.param, tmp_path_factory.mktemp("spacy"))


def text_in(model: Path) -> str:
    return SENTENCES[model.name][0].format(person="Grace Hopper", org="Acme", money="$ 500", place="Paris")


def test_its_labels_become_the_published_types(model: Path) -> None:
    settings = Settings(extraction={"names": f"spacy:{model}", "relations": "none"})
    (one,) = build.build_extractor(settings).extract([text_in(model) + DATED])
    assert {mention.text: mention.type for mention in one.mentions} == {
        "Grace Hopper": "PERSON",
        "Acme": "ORG",
        "Paris": "LOC",
        "20 July 1969": "DATE",
    }
    assert one.pipeline == f"spacy-{model.name}_tiny-1.2.3+none"
    assert one.degraded == {}


def test_batch_equals_one_by_one(model: Path) -> None:
    texts = [text_in(model), "", "plain words", text_in(model) * 3, "💥"]
    small, large = (SpacyRecogniser(str(model), batch_texts=size) for size in (1, 4))
    assert small.recognise(texts) == large.recognise(texts) == [large.recognise([text])[0] for text in texts]
    assert large.recognise([]) == []
    assert "sentencizer" not in large._pipeline.pipe_names


def test_words_do_not_pile_up(model: Path) -> None:
    recogniser = SpacyRecogniser(str(model), batch_texts=8)
    recogniser.recognise(["a first text"])
    before = len(recogniser._pipeline.vocab.strings)
    recogniser.recognise([f"word{number} word{-number}" for number in range(500)])
    assert len(recogniser._pipeline.vocab.strings) - before < 50


def test_a_model_that_is_missing_leaves_the_rules() -> None:
    watch = Watch()
    extractor = build.build_extractor(Settings(extraction={"names": "spacy:xx_nowhere_sm"}), observe=watch)
    (one,) = extractor.extract(["Dr. Strange is here."])
    assert one.pipeline.startswith("rules+")
    assert "xx_nowhere_sm" in one.degraded["ner"]
    assert "install its package or name its folder" in (watch.setup["ner"].missing or "")


def test_a_pipeline_without_names_is_refused(tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(ValueError, match="finds no names"):
        SpacyRecogniser(str(tmp_path), batch_texts=1)


def test_labels() -> None:
    import doctest

    assert doctest.testmod(other_labels).failed == 0
    for label in ("CARDINAL", "ORDINAL", "MONEY", "PERCENT", "QUANTITY", "TIME"):
        assert other_labels.published_type(label, "third one") is None
    for label, type_ in {
        "FAC": "LOC",
        "WORK_OF_ART": "WORK",
        "LANGUAGE": "NORP",
        "LAW": "MISC",
        "PER": "PERSON",
    }.items():
        assert other_labels.published_type(label, "Name") == type_
