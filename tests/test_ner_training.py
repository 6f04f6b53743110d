"""What the recogniser learns from: data sets read, their labels mapped, what is held out, and how it is scored."""

import os
from pathlib import Path

import pytest

from processors.ner import Span
from processors.ner.labels import LABELS
from training import labels
from training.corpora import Gold, Sentence, example, gold, held_out, joined, read_bio, training_examples
from training.evaluate import count
from training.passages import passage_examples

DATA = Path(os.environ.get("AEGIS_DATA", "../shared/data"))


def names_of(allowed: int) -> set[str]:
    return {label for place, label in enumerate(LABELS) if allowed >> place & 1}


def test_iob1_and_iob2_read_alike(tmp_path: Path) -> None:
    for name, rows in {"iob1": "I-PER I-PER B-PER O I-LOC", "iob2": "B-PER I-PER B-PER O B-LOC"}.items():
        path = tmp_path / name
        path.write_text("".join(f"w{place} {tag}\n" for place, tag in enumerate(rows.split())), encoding="utf-8")
        ((sentence,),) = read_bio(path, word=0, label=1, separator=" ")
        assert sentence.mentions == [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC")]


def test_comments_are_no_words_and_tags_of_tweets_are(tmp_path: Path) -> None:
    path = tmp_path / "comments"
    path.write_text("# sent_id = 1\n1\t#\tO\n2\t#news\tB-OTH\n\n# newdoc id = 2\n1\tBonn\tB-LOC\n", encoding="utf-8")
    first, second = read_bio(path, word=1, label=2)
    assert first == [Sentence(["#", "#news"], [(1, 2, "OTH")])]
    assert second == [Sentence(["Bonn"], [(0, 1, "LOC")])]


def test_sentences_are_joined_up_to_a_length() -> None:
    sentences = [Sentence(["a", "B"], [(1, 2, "PER")])] * 3
    long, short = joined(sentences, 4)
    assert long == Sentence(["a", "B", "a", "B"], [(1, 2, "PER"), (3, 4, "PER")], [0, 2])
    assert gold(long) == Gold("a B\na B", [(2, 3, "PER"), (6, 7, "PER")])
    assert short.words == ["a", "B"]


def test_a_label_allows_what_it_may_stand_for() -> None:
    words = ["The", "French", "Alien", "film", "of", "Bonn"]
    mentions = [(1, 2, "OTH"), (2, 3, "OTH"), (4, 5, "unmapped"), (5, 6, "LOC")]
    french, alien, film, of, bonn = example("uner", Sentence(words, mentions), labels.UNER).allowed[1:]
    assert names_of(french) == {"B-NORP"}
    assert names_of(alien) == {"B-NORP", "B-PRODUCT", "B-EVENT", "B-WORK", "B-MISC"}
    assert names_of(film) == {"O"}
    assert names_of(of) == set(LABELS)
    assert names_of(bonn) == {"B-LOC"}


def test_nothing_held_out_is_trained_on() -> None:
    trained = {" ".join(example.words) for example in training_examples(DATA)}
    for name, (golds, _) in held_out(DATA).items():
        assert golds, name
        texts = [" ".join(gold.text.split()) for gold in golds]
        assert not [text for text in texts if text in trained and len(text) > 40], name


def test_passages_of_evaluation_documents_are_not_trained_on() -> None:
    texts = [" ".join(example.words[:12]) for example in passage_examples(DATA)]
    evaluated = " ".join(gold.text.replace("\n", " ") for gold in held_out(DATA)["Re-DocRED dev"][0])
    assert len(texts) > 5000
    assert not [text for text in texts if text in evaluated]


def test_scores_are_of_whole_mentions() -> None:
    golds = [Gold("Ada met Bob in Bonn", [(0, 3, "PER"), (8, 11, "PER"), (15, 19, "LOC")])]
    found = [Span(0, 3, "PERSON", 1), Span(8, 10, "PERSON", 1), Span(15, 19, "ORG", 1), Span(4, 7, "WORK", 1)]
    precision, recall, f1 = count(golds, [found], {"PER": ("PERSON",), "LOC": ("LOC",), "ORG": ("ORG",)}).scores()
    assert (precision, recall, f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_what_a_data_set_does_not_tell_counts_neither_way() -> None:
    golds = [Gold("Ada in Bonn", [(0, 3, "PER"), (7, 11, "unmapped")])]
    found = [Span(0, 3, "PERSON", 1), Span(7, 11, "PERSON", 1)]
    assert count(golds, [found], {"PER": ("PERSON",)}).scores() == (1, 1, 1)
    left_alone = count(golds, [found], {"PER": ("PERSON",), "unmapped": ()})
    assert left_alone.scores() == pytest.approx((0.5, 1, 2 / 3))
