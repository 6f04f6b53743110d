"""The published types (schemas/vocabulary.py) of what other models and corpora label a name with."""

from processors.ner.dates import dates
from schemas.vocabulary import ENTITY_TYPES

# OntoNotes 5 (spaCy's English and most other pipelines), CoNLL 2003 and WikiNER (its German ones, among others), and
# how language models write them.
_TYPES = {
    **{type_: type_ for type_ in ENTITY_TYPES},
    **dict.fromkeys(("PER", "PEOPLE"), "PERSON"),
    **dict.fromkeys(("ORGANIZATION", "ORGANISATION", "COMPANY"), "ORG"),
    **dict.fromkeys(("GPE", "FAC", "FACILITY", "LOCATION", "PLACE", "CITY", "COUNTRY"), "LOC"),
    **dict.fromkeys(("LANGUAGE", "NATIONALITY", "RELIGION"), "NORP"),
    "WORK_OF_ART": "WORK",
    "LAW": "MISC",
}
# Attributes of what is named, never entities.
_NUMBERS = frozenset({"CARDINAL", "ORDINAL", "MONEY", "PERCENT", "QUANTITY", "TIME", "NUMBER"})


def published_type(label: str, surface: str) -> str | None:
    """The type of a text with this label; None where it names nothing: a number, or a time that is no date.

    A name of a kind that is not published is MISC.

    >>> [published_type(*one) for one in [("GPE", "Rome"), ("Work of Art", "Ran"), ("GENE", "p53"), ("MONEY", "$ 5")]]
    ['LOC', 'WORK', 'MISC', None]
    >>> [published_type("DATE", surface) for surface in ("20 July 1969", "two weeks", "42")]
    ['DATE', None, None]
    """
    plain = "_".join(label.upper().split())
    type_ = None if plain in _NUMBERS else _TYPES.get(plain, "MISC")
    is_name = any(dates(surface)) if type_ == "DATE" else any(map(str.isalpha, surface))
    return type_ if is_name else None
