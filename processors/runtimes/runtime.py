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
