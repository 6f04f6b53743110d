"""Trying another runtime on a share of the texts, and going back at once."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from processors.runtimes.runtime import Runtime, Tokenised, Vectors


class RolloutRuntime:
    """A share of the texts goes to a candidate, the others stay where they are.

    A text always goes the same way at the same percentage, so that what is embedded again is embedded alike. The
    percentage is asked for at every batch: setting it to 0 takes effect with the next one.
    """

    def __init__(self, stable: Runtime, candidate: Runtime, percent: Callable[[], int]) -> None:
        self._stable = stable
        self._candidate = candidate
        self._percent = percent

    def encode(self, batch: Sequence[Tokenised]) -> Vectors:
        """As ``Runtime.encode``."""
        percent = self._percent()
        chosen = np.array([_place(text.text) < percent for text in batch])
        if chosen.all() or not chosen.any():
            return (self._candidate if chosen.all() else self._stable).encode(batch)
        first = self._candidate.encode([text for text, one in zip(batch, chosen, strict=True) if one])
        vectors = np.empty((len(batch), first.shape[1]), np.float32)
        vectors[chosen] = first
        vectors[~chosen] = self._stable.encode([text for text, one in zip(batch, chosen, strict=True) if not one])
        return vectors


class Percentage:
    """A percentage, and a file that overrides it and is read again when it changes: a mounted ConfigMap, say.

    A file that holds no number from 0 to 100 counts as 0, the way back; one that is not there overrides nothing.
    """

    def __init__(self, default: int, file: Path | None) -> None:
        self._default = default
        self._file = file
        self._read: tuple[int, int] | None = None

    def __call__(self) -> int:
        """The percentage now."""
        try:
            changed = self._file.stat().st_mtime_ns if self._file else None
        except OSError:
            changed = None
        if changed is None or self._file is None:
            return self._default
        if self._read is None or self._read[0] != changed:
            self._read = changed, _percent_in(self._file)
        return self._read[1]


def _percent_in(file: Path) -> int:
    try:
        percent = int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return percent if 0 <= percent <= 100 else 0


def _place(text: str) -> int:
    """A text's place from 0 to 99."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()) % 100
