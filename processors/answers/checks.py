"""Whether the sources that a claim cites say what it says."""

import re
from dataclasses import dataclass

import numpy as np

from processors.answers.claims import Claim
from processors.answers.evidence import Evidence
from processors.answers.sources import Citation, Source, cited
from schemas.records import Vector

# The best cosine of a sentence plus the share of the claim's words that the source has (tests/eval_answers.py).
SUPPORTED = 1.0
_QUOTED = re.compile(r"[\"“”„«]([^\"“”„«»]{12,400})[\"“”»]")
_FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A claim, the citations that hold, and why it is ``unsupported`` if none does."""

    text: str
    citations: tuple[Citation, ...]
    unsupported: str | None


def check(claim: Claim, evidence: Evidence, vector: Vector) -> CheckedClaim:
    """Compare a claim with the sources it cites.

    Args:
        claim: What was said.
        evidence: The sentences of all sources.
        vector: Of the claim's statement, float32[dimension] of unit length.
    """
    sources = {sentence.source.number: sentence.source for sentence in evidence.sentences}
    named = [sources[number] for number in claim.numbers if number in sources]
    unsupported = _unsupported(claim, named)
    support = {} if unsupported else _support(claim, evidence, vector)
    holding = tuple(cited(evidence.sentences[place]) for score, place in support.values() if score >= SUPPORTED)
    if not unsupported and not holding:
        unsupported = "the cited passages do not say this"
    return CheckedClaim(claim.text, holding, unsupported)


def _unsupported(claim: Claim, named: list[Source]) -> str | None:
    """What is wrong with a claim beyond doubt."""
    if not claim.numbers:
        return "no passage is cited"
    if not named:
        return f"there is no passage {claim.numbers[0]}"
    texts = " ".join(_plain(source.harmless_text) for source in named)
    if missing := [quote for quote in _QUOTED.findall(claim.statement) if _plain(quote) not in texts]:
        return f"the cited passages do not contain “{missing[0]}”"
    figures = _figures(texts)
    if odd := [figure for figure in _figures(claim.statement) if figure not in figures]:
        return f"the cited passages do not contain {odd[0]}"
    return None


def _support(claim: Claim, evidence: Evidence, vector: Vector) -> dict[int, tuple[float, int]]:
    """Each cited source's score, and the sentence of it that is nearest to the claim."""
    words = evidence.words(claim.statement)
    cosines, coverage = evidence.cosines(vector), evidence.coverage(words)
    numbers = np.array(evidence.numbers)
    scores = {}
    for number in claim.numbers:
        rows = np.flatnonzero(numbers == number)
        if len(rows):
            nearest = int(rows[np.argmax(cosines[rows] + coverage[rows])])
            scores[number] = float(cosines[rows].max()) + evidence.share_of(words, rows.tolist()), nearest
    return scores


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _figures(text: str) -> list[str]:
    """Numbers in digits, whatever separates thousands and decimals."""
    return [re.sub(r"[.,:]", "", figure) for figure in _FIGURE.findall(text)]
