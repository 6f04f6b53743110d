"""What an answer says of itself, in the question's language as far as it is known."""

from dataclasses import dataclass

from processors.lexicon import is_german


@dataclass(frozen=True)
class Words:
    """Sentences; ``kind`` and ``kinds`` are filled in."""

    extractive: str
    unknown: str
    no_model: str
    no_budget: str
    broke_off: str
    removed: str
    suspicious_question: str
    suspicious_source: str


_ENGLISH = Words(
    extractive="Quoted from the documents, not written by a language model:",
    unknown="I don't know: nothing that was found answers this question.",
    no_model="The language model does not answer now; this is quoted instead.",
    no_budget="The budget for language models is used up; this is quoted instead.",
    broke_off="The language model broke off; this is what it had said by then.",
    removed="Something was taken out of the answer: {kind}.",
    suspicious_question="The question looks like an attempt to give the system orders ({kinds}).",
    suspicious_source="Some passages hold orders to language models; these parts were left out.",
)
_GERMAN = Words(
    extractive="Aus den Dokumenten zitiert, nicht von einem Sprachmodell geschrieben:",
    unknown="Das weiß ich nicht: Nichts von dem, was gefunden wurde, beantwortet diese Frage.",
    no_model="Das Sprachmodell antwortet gerade nicht; stattdessen wird zitiert.",
    no_budget="Das Budget für Sprachmodelle ist aufgebraucht; stattdessen wird zitiert.",
    broke_off="Das Sprachmodell ist abgebrochen; das hatte es bis dahin gesagt.",
    removed="Aus der Antwort wurde etwas entfernt: {kind}.",
    suspicious_question="Die Frage sieht wie ein Versuch aus, dem System Befehle zu geben ({kinds}).",
    suspicious_source="Einige Fundstellen enthalten Befehle an Sprachmodelle; diese Teile wurden ausgelassen.",
)


def words_for(question: str) -> Words:
    """German for a German question, else English."""
    return _GERMAN if is_german(question) else _ENGLISH
