"""Which index answers, and what it was made with: files in the data folder (docs/adr/0021).

``generation.json`` names the index that answers. ``next.json`` is a whole one that is offered to the node, which either
answers from it and makes it the former, or turns it down.
"""

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from schemas.settings import Settings

LIVE = "generation.json"
OFFERED = "next.json"


class Generation(BaseModel):
    """An index's name and the settings it was made with; they hold for it whatever the environment says."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    name: str
    model: str
    max_tokens: int
    overlap_tokens: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        chunking = settings.chunking
        return cls(
            name=settings.generation,
            model=settings.embedding.model,
            max_tokens=chunking.max_tokens,
            overlap_tokens=chunking.overlap_tokens,
        )

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with this index's own."""
        tokens = {"max_tokens": self.max_tokens, "overlap_tokens": self.overlap_tokens}
        return settings.model_copy(
            update={
                "generation": self.name,
                "embedding": settings.embedding.model_copy(update={"model": self.model}),
                "chunking": settings.chunking.model_copy(update=tokens),
            }
        )


def read(folder: Path, file: str = LIVE) -> Generation | None:
    """The generation that a file names; None where there is no such file."""
    try:
        return Generation.model_validate_json((folder / file).read_text())
    except FileNotFoundError:
        return None


def offer(folder: Path, generation: Generation) -> None:
    """Let the node know of an index that is whole."""
    write_whole(folder / OFFERED, generation.model_dump_json())


def make_live(folder: Path) -> None:
    """The index that was offered is the one that answers; a kill leaves either."""
    (folder / OFFERED).replace(folder / LIVE)


def turn_down(folder: Path) -> None:
    """What was offered cannot be opened."""
    (folder / OFFERED).unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or as it was, after a power failure too."""
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def number_of(generation: str) -> int:
    """Generations count from 1; the first one's name is empty."""
    return int(generation.removeprefix("g") or 1)


def in_effect(settings: Settings) -> Settings:
    """The settings, with those that the live index was made with."""
    generation = read(settings.data_dir)
    return generation.applied_to(settings) if generation else settings


def overruled(settings: Settings) -> list[str]:
    """Which settings are not the default and do not hold, in sentences."""
    holds = in_effect(settings)
    pairs = (("embedding", "model"), ("chunking", "max_tokens"), ("chunking", "overlap_tokens"))
    return [
        f"AEGIS_{group}__{name}".upper() + f" is {given}, but the index was made with {made}; `aegis reindex` makes "
        "another"
        for group, name in pairs
        if (given := getattr(part := getattr(settings, group), name)) != type(part).model_fields[name].default
        and given != (made := getattr(getattr(holds, group), name))
    ]
