"""What every runtime is: tokenised texts in, unit vectors out."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Tokenised(NamedTuple):
    """A text and its token ids, special tokens included, cut at the model's limit."""

    text: str
    ids: list[int]


class Runtime(Protocol):
    """A loaded encoder on some device. May be shared by threads."""

    def encode(self, batch: Sequence[Tokenised]) -> Vectors:
        """Encode texts: float32[len(batch), dimension], rows of unit length.

        Raises:
            UnavailableError: The device or the server failed.
            MemoryError: The batch is too large for the device.
        """


def padded(batch: Sequence[Tokenised]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask, int64[len(batch), longest], padded with 0 on the right."""
    ids = np.zeros((len(batch), max(len(text.ids) for text in batch)), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text.ids)] = text.ids
        mask[row, : len(text.ids)] = 1
    return ids, mask
