"""Which two names of a graph are names of one thing: a function of both names and their type alone.

``keys`` gives the forms by which names can meet, ``alias`` decides about two names that have met, and says why. Nothing
else is looked at, so a corpus has the same links in whatever order, and by however many workers, it was read. How
precise each reason is, `python -m tests.eval_entities` measures; docs/adr/0014 says what was left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Literal, NamedTuple

Reason = Literal["spelling", "legal form", "order", "sound", "initials", "acronym", "short acronym", "middle name"]

SCORES: Mapping[Reason, float] = MappingProxyType(
    {
        "spelling": 0.99,
        "legal form": 0.97,
        "order": 0.97,
        "sound": 0.96,
        "initials": 0.97,
        "acronym": 0.96,
        "middle name": 0.87,
        "short acronym": 0.85,
    }
)
"""Share of a reason's links that are right, in round numbers."""

_SHORT: tuple[Reason, ...] = ("initials", "acronym", "short acronym")

# What NFKD leaves of Latin letters, and one transliteration of Cyrillic and Greek.
_LETTERS = str.maketrans({
    "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t",
    "а": "a", "б": "b", "в": "v", "г": "g", "ґ": "g", "д": "d", "е": "e", "ж": "zh", "з": "z", "и": "i", "і": "i",
    "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f",
    "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu",
    "я": "ya", "є": "ye", "ћ": "c", "ђ": "d", "љ": "lj", "њ": "nj", "џ": "dz", "ј": "j",
    "α": "a", "β": "v", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "i", "θ": "th", "ι": "i", "κ": "k", "λ": "l",
    "μ": "m", "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t", "υ": "y", "φ": "f",
    "χ": "ch", "ψ": "ps", "ω": "o",
})  # fmt: skip
_NUMBERS = {
    word: str(value)
    for numerals in ("one two three four five six seven eight nine ten", "i ii iii iv v vi vii viii ix x xi xii xiii")
    for value, word in enumerate(numerals.split(), 1)
}
_COUNTRIES = {
    "us": "united states",
    "usa": "united states",
    "uk": "united kingdom",
    "uae": "united arab emirates",
    "ussr": "soviet union",
}
_SMALL = frozenset({
    "of", "the", "and", "for", "de", "la", "du", "des", "der", "die", "das", "fur", "und", "in", "a", "an",
    "at", "on", "y", "e",
})  # fmt: skip
_LEGAL_FORMS = frozenset({
    "corporation", "incorporated", "company", "limited", "inc", "ltd", "llc", "corp", "co", "gmbh", "ag", "plc",
    "sa", "se", "kg", "nv",
})  # fmt: skip
# In this order: letters that one name has in several spellings, in English, German and transliterations.
_SOUNDS = {
    "ph": "f", "kh": "k", "ch": "k", "ck": "k", "c": "k", "q": "k", "y": "i", "j": "i", "w": "v", "z": "s",
    "th": "t", "gh": "g", "ou": "u", "oo": "u", "ee": "i", "sh": "s", "ae": "a", "oe": "o", "ue": "u",
}  # fmt: skip
_SPELT_OUT_FROM = 5  # letters from which ae, oe, ue may stand for umlauts, and words be written as one


class Alias(NamedTuple):
    """Why two names are of one thing. ``score`` is how often that is right."""

    reason: Reason
    score: float


def is_short(reason: str) -> bool:
    """Whether one of the names is a short form then, which can be short for several others."""
    return reason in _SHORT


def keys(type_: str, name: str) -> set[str]:
    """The forms by which a folded name meets others of its type: at most two, none for dates and bare personal names.

    >>> sorted(keys("ORG", "world health organization")), sorted(keys("ORG", "nato"))
    (['form vorldhealtorganisation', 'initials who'], ['form nato', 'initials nato'])
    >>> keys("PERSON", "lovelace")
    set()
    """
    words = _words(type_, name)
    if not words:
        return set()
    found = {f"form {_form(type_, words)}"}
    if letters := _initials(type_, words):
        found.add(f"initials {letters}")
    return found


def alias(type_: str, first: str, second: str) -> Alias | None:
    """Why two folded names of one type that share a key are names of one thing, if they are.

    >>> alias("ORG", "us navy", "united states navy")
    Alias(reason='spelling', score=0.99)
    >>> alias("PERSON", "john f kennedy", "john fitzgerald kennedy").reason
    'initials'
    >>> alias("PERSON", "leopold i", "leopold ii")
    """
    one, other = _words(type_, first), _words(type_, second)
    reason = _reason(type_, one, other) if one and other and first != second else None
    return Alias(reason, SCORES[reason]) if reason else None


def spelt_out(name: str) -> tuple[int, int, str]:
    """Sorts names: the one with the most words first, then the longest, then the smallest."""
    return (-len(name.split()), -len(name), name)


def _reason(type_: str, one: Sequence[str], other: Sequence[str]) -> Reason | None:
    if _spelling(type_, one) == _spelling(type_, other):
        return "spelling"
    if _form(type_, one) == _form(type_, other):
        return _formal_reason(type_, one, other)
    if type_ == "PERSON":
        return _personal_reason(one, other)
    short, full = sorted((one, other), key=len)
    if len(short) == 1 < len(full) and _initials(type_, short) == _initials(type_, full) != "":
        return "acronym" if len(short[0]) > len("abc") else "short acronym"
    return None


def _formal_reason(type_: str, one: Sequence[str], other: Sequence[str]) -> Reason | None:
    if type_ == "ORG" and _spelling(type_, _stem(one)) == _spelling(type_, _stem(other)):
        return "legal form"
    if sorted(one) == sorted(other):
        return "order"
    return "sound" if min(len(one), len(other)) > 1 else None


def _personal_reason(one: Sequence[str], other: Sequence[str]) -> Reason | None:
    if one[-1] != other[-1]:
        return None
    if len(one) == len(other) > 2 and all(map(_is_initial_of, one[:-1], other[:-1])):
        return "initials"
    if 2 in (len(one), len(other)) and one[0] == other[0] and len(one[0]) > 1:
        return "middle name"
    return None


def _is_initial_of(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) == 1 and one[0] == other[0])


def _words(type_: str, name: str) -> list[str]:
    """A name's words in Latin letters with numbers as digits; none where a name alone never says who it is."""
    words = name.translate(_LETTERS).split()
    if type_ == "DATE" or (type_ == "PERSON" and len(words) < 2):
        return []
    if type_ != "PERSON":
        spelt = " ".join(_COUNTRIES.get(word, word) for word in words)
        words = spelt.replace("united states of america", "united states").split()
        words = [part for word in words for part in _digits_apart(word)]
    return [word if type_ == "PERSON" and len(word) == 1 else _NUMBERS.get(word, word) for word in words]


def _digits_apart(word: str) -> Iterator[str]:
    return ("".join(letters) for _, letters in groupby(word, key=str.isdigit))


def _spelling(type_: str, words: Sequence[str]) -> str:
    whole = (" " if type_ == "PERSON" else "").join(words)
    return re.sub("([aou])e", r"\1", whole) if len(whole) >= _SPELT_OUT_FROM else " ".join(words)


def _form(type_: str, words: Sequence[str]) -> str:
    """What all spellings share, however they sound alike; of persons in any order of the words."""
    if type_ == "PERSON":
        return " ".join(sorted(map(_sound, words)))
    return _sound("".join(_stem(words) if type_ == "ORG" else words))


def _sound(word: str) -> str:
    for written, heard in _SOUNDS.items():
        word = word.replace(written, heard)
    return re.sub(r"(\D)\1+", r"\1", word)


def _stem(words: Sequence[str]) -> Sequence[str]:
    """An organisation's name without its legal form, as long as two words are left."""
    while len(words) > 2 and words[-1] in _LEGAL_FORMS:
        words = words[:-1]
    return words


def _initials(type_: str, words: Sequence[str]) -> str:
    if type_ == "PERSON":  # so that a middle name, in full, as an initial or left out, decides nothing yet
        return f"{words[0][0]} {words[-1]}"
    if type_ in ("LOC", "NORP"):
        return ""
    if len(words) == 1:
        return words[0] if 2 < len(words[0]) < 9 and words[0].isalpha() else ""
    large = [word for word in words if word not in _SMALL]
    return "".join(word[0] for word in large) if len(large) > 2 else ""
