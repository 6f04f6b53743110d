"""What a text says of the entities it mentions, by several ways of finding it out."""

from collections.abc import Sequence
from typing import Protocol

from schemas.records import Mention, Relation


class RelationExtractor(Protocol):
    """Reads relations between the mentions of a text."""

    @property
    def name(self) -> str:
        """What the extraction's pipeline calls it."""

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[tuple[Relation, ...]]:
        """Relations of each text, in the texts' order. Both ends are entities of that text's mentions.

        Raises:
            UnavailableError: It cannot say now; another extractor may.
        """
