"""The second phase of extraction: one name for what a text names in several ways.

Two steps, both functions of the text alone, so that the order of documents and the number of workers change nothing:
``folded`` writes a name the one way that all its spellings share, and ``resolved`` gives short forms the name that
the same text spells out: the family name of a person, the initials of an organisation.

Meaning does not enter: by MiniLM's cosines, Korea is as close to South Korea (.94) as the U.S. Navy is to the United
States Navy (.96); docs/adr/0012.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from schemas.records import Mention

_MARKS = re.compile(r"[.,'’`´‘\"“”„]")
_SEPARATORS = re.compile(r"[\s\-‐‑–—_/]+")
_POSSESSIVE = re.compile(r" ?['’]s\b|['’]$")
_SMALL_WORDS = frozenset({"of", "the", "and", "for", "de", "la", "du", "des", "der", "die", "das", "für", "und", "in"})
_LEGAL_FORMS = frozenset({"inc", "ltd", "llc", "corp", "co", "gmbh", "ag", "plc", "sa", "se", "kg"})
_HONORIFICS = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof", "professor", "sir", "herr", "herrn", "frau"})
_REGNAL = re.compile(r"[ivx]+$")


def folded(name: str, type_: str) -> str:
    """A normalised name as all its spellings share it: without accents, hyphens, dots, articles, titles, legal forms.

    >>> [folded(name, "ORG") for name in ("the u.s. navy's", "acme rockets inc", "flor - de - lis", "st. gallen")]
    ['us navy', 'acme rockets', 'flor de lis', 'saint gallen']
    >>> folded("dr. jürgen müller-lüdenscheidt", "PERSON")
    'jurgen muller ludenscheidt'
    """
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    plain = _MARKS.sub("", _POSSESSIVE.sub("", plain).replace("&", " and "))
    words = _SEPARATORS.sub(" ", plain).split()
    if type_ == "PERSON":
        words = _without_first(words, _HONORIFICS)
    else:
        words = _without_last(_without_first(words, {"the"}), _LEGAL_FORMS)
    words = ["saint" if word == "st" and place + 1 < len(words) else word for place, word in enumerate(words)]
    return " ".join(words) or name


def deduplicated(mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions of one text under the names they share."""
    return resolved([mention.model_copy(update={"name": folded(mention.name, mention.type)}) for mention in mentions])


def resolved(mentions: Sequence[Mention]) -> list[Mention]:
    """Short forms under the name, and the type, of the one thing in the same text that they can be short for."""
    full = {(mention.type, mention.name): mention.name.split() for mention in mentions if " " in mention.name}
    return [_resolved(mention, full.items()) for mention in mentions]


def _resolved(mention: Mention, full: Iterable[tuple[tuple[str, str], Sequence[str]]]) -> Mention:
    if mention.type == "DATE":
        return mention
    found = {key for key, words in full if _is_short_for(mention, key[0], words)}
    if len(found) != 1:  # nobody, or it could be either
        return mention
    ((type_, name),) = found
    return mention.model_copy(update={"type": type_, "name": name})


def _is_short_for(mention: Mention, type_: str, words: Sequence[str]) -> bool:
    short = mention.name.split()
    if mention.type == type_ == "PERSON":
        if len(short) == 1:
            return len(short[0]) > 1 and short[0] in (words[0], words[-1]) and not _REGNAL.match(words[-1])
        return len(short) < len(words) and (short[0], short[-1]) == (words[0], words[-1])
    if type_ in ("PERSON", "DATE") or len(short) != 1 or not mention.text.replace(".", "").isupper():
        return False
    initials = "".join(word[0] for word in words if word not in _SMALL_WORDS)
    return len(initials) > 1 and short[0] in (initials, "".join(word[0] for word in words))


def _without_first(words: list[str], unwanted: Iterable[str]) -> list[str]:
    while len(words) > 1 and words[0] in unwanted:
        words = words[1:]
    return words


def _without_last(words: list[str], unwanted: Iterable[str]) -> list[str]:
    while len(words) > 1 and words[-1] in unwanted:
        words = words[:-1]
    return words
