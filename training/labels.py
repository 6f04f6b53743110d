"""How the labels of each data set map to ours.

A label maps to every type it may stand for; which one, the recogniser decides in training from the other data sets.
A data set that does not annotate a type says nothing about it.
"""

from collections.abc import Mapping

from processors.ner.labels import OUTSIDE, TYPES, begin, inside

Allowed = int  # a bit for each label

_PERSON, _ORG, _LOC, _EVENT, _WORK, _MISC = ("PERSON",), ("ORG",), ("LOC",), ("EVENT",), ("WORK",), ("MISC",)
_OTHER = ("NORP", "PRODUCT", "EVENT", "WORK", "MISC")

UNER: Mapping[str, tuple[str, ...]] = {"PER": _PERSON, "ORG": _ORG, "LOC": _LOC, "OTH": _OTHER}
WIKIGOLD: Mapping[str, tuple[str, ...]] = {"PER": _PERSON, "ORG": _ORG, "LOC": _LOC, "MISC": _OTHER}
WNUT: Mapping[str, tuple[str, ...]] = {
    "person": _PERSON,
    "location": _LOC,
    "corporation": _ORG,
    "group": _ORG,
    "product": ("PRODUCT",),
    "creative-work": _WORK,
}
CROSSNER: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("person", "politician", "musicalartist", "writer", "scientist"), _PERSON),
    **dict.fromkeys(("organisation", "politicalparty", "band", "university"), _ORG),
    **dict.fromkeys(("country", "location"), _LOC),
    **dict.fromkeys(("event", "election"), _EVENT),
    **dict.fromkeys(("song", "album", "book", "poem"), _WORK),
    **dict.fromkeys(("magazine", "academicjournal"), ("WORK", "ORG")),
    "award": _MISC,
    "misc": _OTHER,
}
GERMEVAL: Mapping[str, tuple[str, ...]] = {
    "PER": _PERSON,
    "ORG": _ORG,
    "LOC": _LOC,
    "OTH": _OTHER,
    "LOCderiv": ("NORP",),
}
"""A label that is absent here (musicgenre, protein, ORGpart, ...) is a name to some and a common noun to us: it is
no mention of ours for certain, and its words may be of any label."""

UNER_DEV: Mapping[str, tuple[str, ...]] = {"PER": _PERSON, "ORG": _ORG, "LOC": _LOC}  # no OTH is annotated in it
REDOCRED: Mapping[str, tuple[str, ...]] = {
    "PER": _PERSON,
    "ORG": _ORG,
    "LOC": _LOC,
    "MISC": _OTHER,
    "NORP": ("NORP",),  # LOC and MISC of the data set's own, where they name a people
}


def words_of(text: str) -> frozenset[str]:
    """Its words, of which white space is no part."""
    return frozenset(text.split())


_PEOPLES = words_of(
    """afghan african albanian algerian american angolan arab arabian argentine argentinian armenian asian assyrian
    athenian australian austrian azerbaijani bahraini bangladeshi basque bavarian belarusian belgian bengali bolivian
    bosnian brazilian british bulgarian burmese byzantine californian cambodian cameroonian canadian cantonese catalan
    catholic celtic chechen chilean chinese christian colombian congolese corsican cossack croatian cuban cypriot czech
    danish dane dutch ecuadorian egyptian english eritrean estonian ethiopian eurasian european fijian filipino finnish
    finn flemish french frankish gaelic georgian german germanic ghanaian greek greenlandic guatemalan haitian hawaiian
    hebrew hellenistic hindu honduran hungarian icelandic indian indonesian iranian iraqi irish islamic islamist israeli
    italian jamaican japanese jewish jew jordanian kazakh kenyan korean kosovar kurdish kurd kuwaiti kyrgyz laotian
    latin latvian lebanese liberian libyan lithuanian lutheran macedonian malay malayalam malaysian maltese maori
    mexican moldovan mongolian montenegrin moroccan moslem muslim namibian nepalese nepali nicaraguan nigerian norse
    norwegian orthodox ottoman pakistani palestinian panamanian paraguayan persian peruvian pole polish polynesian
    portuguese protestant prussian punjabi roman romanian russian rwandan saudi saxon scandinavian scot scots scottish
    serb serbian shia shiite sicilian sikh slavic slovak slovakian slovene slovenian somali soviet spanish spaniard
    sudanese sumerian sunni swede swedish swiss syrian taiwanese tamil tanzanian telugu thai tibetan tunisian turk
    turkish ugandan ukrainian urdu uruguayan uzbek venetian venezuelan vietnamese viking welsh yemeni yugoslav
    zimbabwean"""
)


def is_people(words: str) -> bool:
    """Whether it names a people, a language or a faith: the one type that no English data set tells apart."""
    word = words.lower()
    return word in _PEOPLES or (word.endswith("s") and word[:-1] in _PEOPLES)


def types_of(label: str, words: str, mapping: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Types that a data set's label of a mention may stand for; None where it says nothing."""
    types = mapping.get(label)
    if types is not None and types not in (_PERSON, _ORG) and is_people(words):
        return ("NORP",)
    return types


def allowed_outside(word: str) -> Allowed:
    """Labels of a word that a data set leaves unlabelled."""
    return 1 << OUTSIDE | (1 << begin(TYPES.index("NORP")) if is_people(word) and word[0].isupper() else 0)


def allowed_in_mention(types: tuple[str, ...], *, first: bool) -> Allowed:
    """Labels of a mention's word."""
    return sum(1 << (begin if first else inside)(TYPES.index(type_)) for type_ in types)


ANYTHING: Allowed = (1 << 1 + 2 * len(TYPES)) - 1
