"""Wikipedia passages whose title and first sentence tell the type of one name: annotated in part, by rule.

Of such a passage only the name of its title is a mention for certain, and only what no name contains is none.
Whatever else is written with a capital may be anything.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from training.corpora import Example
from training.labels import ANYTHING, allowed_in_mention, words_of

_MAX_WORDS = 70
_PARTICLES = words_of("of the and de la le du von van der den & for in to a an on at")
_WORD = re.compile(r"\w+|[^\w\s]")
_FIRST_SENTENCE = re.compile(r"^.{20,400}?[a-z)\"]{2}\.(?=\s|$)", re.DOTALL)
_BORN = re.compile(r"\(.{0,60}?(?:born|\d{4} ?[–-] ?.{0,20}\d{4}|died)")
_IS_A = re.compile(r"\b(?:is|was|are|were) (?:an?|the|one of|[\w-]+ of) ?(?P<kind>[^.,;]{3,90})")
_KINDS = {
    "WORK": "film|album|song|single|novel|book|series|sitcom|opera|play|musical|poem|painting|soundtrack|ep|drama",
    "ORG": "company|band|university|college|club|party|team|school|organi[sz]ation|agency|corporation|institute|"
    "label|group|association|network|airline|orchestra|duo|studio|studios|brand|manufacturer|retailer|bank|newspaper",
    "LOC": "village|city|town|river|lake|island|municipality|district|province|county|country|region|mountain|state|"
    "commune|park|settlement|suburb|peninsula|capital|community|township|airport|hamlet|borough|parish|street",
    "EVENT": "battle|war|election|championship|tournament|festival|season|olympics|conflict|siege|revolution|massacre",
    "PRODUCT": "software|car|aircraft|console|smartphone|computer|rifle|missile|locomotive|browser|motorcycle|app",
    "PERSON": "actor|actress|director|singer|politician|player|footballer|writer|author|musician|composer|poet|artist|"
    "producer|king|queen|songwriter|journalist|scientist|professor|general|businessman|lawyer|painter|screenwriter|"
    "cricketer|rapper|bishop|historian|novelist|comedian|wrestler|boxer|model|nobleman|princess|prince|duke|filmmaker",
}
_KIND = re.compile("|".join(rf"\b(?P<{type_}>(?:{words}))\b" for type_, words in _KINDS.items()), re.IGNORECASE)


def passage_examples(folder: Path) -> Iterator[Example]:
    """Passages of the multi-hop sets, but for those of Re-DocRED's documents, on which we evaluate."""
    redocred = json.loads((folder / "re/redocred/dev_revised.json").read_text(encoding="utf-8"))
    seen = {document["title"] for document in redocred}
    for corpus in ("2wiki_164", "hotpotqa_train100", "musique_train100"):
        for line in (folder / f"multihop/{corpus}/corpus.jsonl").read_text(encoding="utf-8").splitlines():
            passage = json.loads(line)
            if passage["title"] not in seen:
                seen.add(passage["title"])
                yield from _example(passage["title"], passage["text"])


def _example(title: str, text: str) -> Iterator[Example]:
    name = _WORD.findall(re.sub(r"\s*\(.*?\)\s*$", "", title))
    type_ = _type(text)
    words = _WORD.findall(text)[:_MAX_WORDS]
    if type_ is None or not name or not title[0].isupper():
        return
    allowed = [_allowed(words, position) for position in range(len(words))]
    found = 0
    for position in range(len(words) - len(name) + 1):
        if [word.lower() for word in words[position : position + len(name)]] == [word.lower() for word in name]:
            found += 1
            for place in range(len(name)):
                allowed[position + place] = allowed_in_mention((type_,), first=place == 0)
    if found:
        yield Example("passages", words, [], allowed, has_mention=True)


def _type(text: str) -> str | None:
    sentence = _FIRST_SENTENCE.match(text)
    if sentence is None:
        return None
    if _BORN.search(sentence[0][:120]):
        return "PERSON"
    is_a = _IS_A.search(sentence[0])
    kind = _KIND.search(is_a["kind"]) if is_a is not None else None
    return kind.lastgroup if kind is not None else None


def _allowed(words: list[str], position: int) -> int:
    """Nothing, for a word in lower case that no capital surrounds; anything else."""
    word = words[position]
    around = words[max(0, position - 2) : position] + words[position + 1 : position + 3]
    is_plain = word.islower() and word not in _PARTICLES
    beside = any(other[0].isupper() for other in around) and not word.isalpha()
    return 1 if is_plain or (not word[0].isupper() and not beside and not word.isalpha()) else ANYTHING
