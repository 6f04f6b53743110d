"""The shipped recogniser: what it finds, the laws of a processor, windows, thresholds, and damaged files."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from processors.errors import PermanentError
from processors.ner import NamedEntityRecogniser
from processors.ner.dates import dates
from processors.ner.labels import TYPES
from processors.ner.recogniser import PACKAGED
from training.corpora import held_out
from training.evaluate import count

DATA = Path(os.environ.get("AEGIS_DATA", "../shared/data"))
RECOGNISER = NamedEntityRecogniser()
EVERYTHING = dict.fromkeys(TYPES, 0.0)
TEXTS = [
    "Marie Curie was a Polish physicist at the University of Paris in France. She won the Nobel Prize in 1903.",
    "",
    "Nothing of note happened, and nobody was there.",
    "  \n",
    "Am 3. Oktober 2015 besuchte Angela Merkel eine Schule in Deutschland.",
    "U.S. troops left Baghdad; the United Nations stayed. " * 12,
]


def found(text: str) -> dict[str, str]:
    (spans,) = RECOGNISER.recognise([text])
    return {text[span.start : span.end]: span.type for span in spans}


def test_english_names() -> None:
    assert found(TEXTS[0]) == {
        "Marie Curie": "PERSON",
        "Polish": "NORP",
        "University of Paris": "ORG",
        "France": "LOC",
        "Nobel Prize": "MISC",
        "1903": "DATE",
    }


def test_german_names() -> None:
    assert found(TEXTS[4]) == {"Angela Merkel": "PERSON", "Deutschland": "LOC", "3. Oktober 2015": "DATE"}


def test_numbers_are_no_entities() -> None:
    assert found("It sold 4,500 units at 12.5 percent for $ 300 to 17 customers.") == {}


def test_a_batch_is_what_each_text_is_alone() -> None:
    together = RECOGNISER.recognise(TEXTS)
    alone = [RECOGNISER.recognise([text])[0] for text in TEXTS]
    assert [[(s.start, s.end, s.type) for s in spans] for spans in together] == [
        [(s.start, s.end, s.type) for s in spans] for spans in alone
    ]
    confidences = [[s.confidence for spans in found for s in spans] for found in (together, alone)]
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-3)
    assert RECOGNISER.recognise([]) == []


def test_threads_share_it() -> None:
    expected = RECOGNISER.recognise(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(RECOGNISER.recognise, [TEXTS] * 8)) == [expected] * 8


def test_spans_are_ordered_and_apart() -> None:
    for spans in NamedEntityRecogniser(thresholds=EVERYTHING).recognise(TEXTS):
        assert all(before.end <= after.start for before, after in pairwise(spans))
        assert all(0 <= span.confidence <= 1 for span in spans)


def test_a_long_text_is_read_in_windows() -> None:
    sentence = "On that day the delegation met Angela Merkel again, and then everybody flew home to London. "
    text = sentence * 60
    spans = [(span.start, text[span.start : span.end]) for span in RECOGNISER.recognise([text])[0]]
    assert spans == [
        (len(sentence) * place + sentence.index(name), name)
        for place in range(60)
        for name in ("Angela Merkel", "London")
    ]


def test_no_name_goes_across_short_lines_and_a_wrapped_line_parts_none() -> None:
    assert found("Angela Merkel\nTim Cook\n") == {"Angela Merkel": "PERSON", "Tim Cook": "PERSON"}
    wrapped = "On the second day of the conference the president met Angela\nMerkel in Berlin."
    assert found(wrapped) == {"Angela\nMerkel": "PERSON", "Berlin": "LOC"}


def test_what_is_not_sure_is_not_written() -> None:
    everything = NamedEntityRecogniser(thresholds=EVERYTHING).recognise(TEXTS)
    sure = NamedEntityRecogniser(thresholds=dict.fromkeys(TYPES, 0.9)).recognise(TEXTS)
    assert sure == [[span for span in spans if span.type == "DATE" or span.confidence >= 0.9] for spans in everything]


def test_no_valid_unicode_never_passes() -> None:
    with pytest.raises(PermanentError, match="Unicode"):
        RECOGNISER.recognise(["fine", "\ud800"])


@pytest.mark.parametrize("name", ["ner.safetensors", "config.json"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(PACKAGED, tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        NamedEntityRecogniser(folder)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(PACKAGED, tmp_path / "model")
    weights = bytearray((folder / "ner.safetensors").read_bytes())
    weights[-7] ^= 1
    (folder / "ner.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="damaged"):
        NamedEntityRecogniser(folder)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(PACKAGED, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "format": 2}), encoding="utf-8")
    with pytest.raises(ValueError, match="another version"):
        NamedEntityRecogniser(folder)


def test_it_is_as_precise_as_the_model_card_says() -> None:
    golds, mapping = held_out(DATA)["UNER English-EWT dev"]
    precision, recall, _ = count(golds[::4], RECOGNISER.recognise([gold.text for gold in golds[::4]]), mapping).scores()
    assert precision > 0.78
    assert recall > 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on 13 March 1963 and March 14, 1964", ["13 March 1963", "March 14, 1964"]),
        ("in 1999, the 1980s and the 19th century", ["1999", "the 1980s", "19th century"]),
        ("am 3. Oktober 1990, in den 1990er Jahren", ["3. Oktober 1990", "den 1990er Jahren"]),
        ("2024-02-29 or 24.12.2023", ["2024-02-29", "24.12.2023"]),
        ("port 8080, $2000, 1,999, v1.1999, 1500%, 12:1999 and no 1984", []),
        ("He may march to the second floor", []),
    ],
)
def test_dates(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in dates(text)] == expected
