"""The published types of entities and relations: what extractors may say, and what the graph holds."""

from collections.abc import Mapping

ENTITY_TYPES = ("PERSON", "ORG", "LOC", "NORP", "PRODUCT", "EVENT", "WORK", "DATE", "MISC")

RELATED_TO = "RELATED_TO"

# A relation reads from its source to its target; the types each end may have.
RELATION_TYPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "BORN_IN": (("PERSON",), ("LOC",)),
    "BORN_ON": (("PERSON",), ("DATE",)),
    "DIED_IN": (("PERSON",), ("LOC",)),
    "DIED_ON": (("PERSON",), ("DATE",)),
    "LIVES_IN": (("PERSON",), ("LOC",)),
    "CITIZEN_OF": (("PERSON",), ("LOC", "NORP")),
    "EDUCATED_AT": (("PERSON",), ("ORG",)),
    "MEMBER_OF": (("PERSON", "ORG", "LOC"), ("ORG",)),
    "LEADS": (("PERSON",), ("ORG", "LOC")),
    "SPOUSE_OF": (("PERSON",), ("PERSON",)),
    "PARENT_OF": (("PERSON",), ("PERSON",)),
    "SIBLING_OF": (("PERSON",), ("PERSON",)),
    "AWARDED": (("PERSON", "ORG", "WORK"), ("WORK", "EVENT", "MISC")),
    "FOUNDED": (("PERSON", "ORG"), ("ORG",)),
    "FOUNDED_ON": (("ORG", "LOC"), ("DATE",)),
    "LOCATED_IN": (("ORG", "LOC", "EVENT", "PRODUCT"), ("LOC",)),
    "PART_OF": (("ORG", "LOC", "WORK", "EVENT", "PRODUCT", "MISC"), ("ORG", "LOC", "WORK", "EVENT", "PRODUCT", "MISC")),
    "OWNS": (("PERSON", "ORG", "LOC"), ("ORG", "PRODUCT")),
    "CREATED": (("PERSON", "ORG"), ("WORK", "PRODUCT", "MISC")),
    "PUBLISHED_ON": (("WORK", "PRODUCT", "MISC"), ("DATE",)),
    "PERFORMS_IN": (("PERSON", "ORG"), ("WORK", "MISC")),
    "TOOK_PART_IN": (("PERSON", "ORG", "LOC"), ("EVENT", "MISC")),
    "HAPPENED_ON": (("EVENT", "MISC"), ("DATE",)),
    RELATED_TO: (ENTITY_TYPES, ENTITY_TYPES),
}


def fits(type_: str, source_type: str, target_type: str) -> bool:
    """Whether a relation of this type may join entities of these types."""
    sources, targets = RELATION_TYPES.get(type_, ((), ()))
    return source_type in sources and target_type in targets
