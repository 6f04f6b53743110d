"""Sparse vectors in English and German."""

import math
from collections import Counter

import pytest

from processors.bm25 import Bm25Encoder, SparseVector
from processors.errors import PermanentError

ENCODER = Bm25Encoder()


def shared(query: str, document: str) -> int:
    """Number of the query's terms that the document has."""
    return len(set(ENCODER.query(query)[0]) & set(ENCODER.document(document)[0]))


def test_indices_are_distinct_and_weights_positive() -> None:
    for indices, values in (
        ENCODER.document("the log of a broker, the log of logs"),
        ENCODER.query("logs, brokers and logs"),
    ):
        assert len(indices) == len(values) == len(set(indices))
        assert all(value > 0 for value in values)


def test_query_weighs_each_term_once() -> None:
    assert set(ENCODER.query("brokers brokers brokers")[1]) == {1.0}


def test_repeated_term_weighs_more_but_saturates() -> None:
    weights = [max(ENCODER.document("kafka " * count + "broker topic offset")[1]) for count in (1, 2, 4, 64)]
    assert weights == sorted(weights)
    assert weights[-1] < 2.3  # k + 1


def test_longer_document_weighs_a_term_less() -> None:
    short = dict(zip(*ENCODER.document("kafka broker"), strict=True))
    long = dict(zip(*ENCODER.document("kafka broker " + " ".join(f"term{n}" for n in range(200))), strict=True))
    (term, *_) = ENCODER.query("kafka")[0]
    assert long[term] < short[term]


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("broker restarts", "It is about the restarting of a broker and the log."),
        ("Häuser", "Das alte Haus ist in der Stadt und nicht auf dem Land."),
        ("Verträge kündigen", "Der Vertrag wird von dem Kunden nicht gekündigt, und das ist erlaubt."),
        ("ÜBERTRAGUNG", "Die Übertragung der Daten ist verschlüsselt und sicher."),
    ],
)
def test_inflected_words_meet_in_both_languages(query: str, document: str) -> None:
    assert shared(query, document) >= 1


def test_stop_words_of_both_languages_are_no_terms() -> None:
    assert ENCODER.query("the and of der die und") == ([], [])
    assert ENCODER.document("") == ([], [])


def test_same_text_gives_the_same_vector() -> None:
    assert ENCODER.document("ein Protokoll, a log") == Bm25Encoder().document("ein Protokoll, a log")


def test_text_that_is_no_unicode_is_a_permanent_error() -> None:
    for encode in (ENCODER.document, ENCODER.query):
        with pytest.raises(PermanentError, match="no valid Unicode"):
            encode("\ud800")


def test_rare_terms_rank_the_right_document_first() -> None:
    documents = {
        "Die Bundesbank hat ihren Sitz in Frankfurt und ist unabhängig von der Regierung.": "Wo sitzt die Bundesbank?",
        "Die Regierung hat ihren Sitz in Berlin, und der Bundestag ist auch dort.": "Wo tagt der Bundestag?",
        "The broker stores records in partitions of a topic.": "Which process stores the records of partitions?",
        "The consumer group commits its offsets to the broker.": "committed offsets of consumer groups",
    }
    vectors = [ENCODER.document(document) for document in documents]
    for position, query in enumerate(documents.values()):
        scores = [score(ENCODER.query(query), vector, vectors) for vector in vectors]
        assert scores.index(max(scores)) == position, query


def score(query: SparseVector, document: SparseVector, documents: list[SparseVector]) -> float:
    counts = Counter(index for indices, _ in documents for index in indices)
    weights = dict(zip(*document, strict=True))
    return sum(
        weights.get(index, 0) * math.log(1 + (len(documents) - counts[index] + 0.5) / (counts[index] + 0.5))
        for index in query[0]
    )
