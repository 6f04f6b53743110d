"""Reading a query and its best candidates together, which is slower and sharper than comparing their vectors."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Reranker(Protocol):
    """Scores what a search found. The scores order the passages of one query and compare with nothing else."""

    @property
    def name(self) -> str:
        """What a response may call it."""

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """A score per passage, in the passages' order, from 0 to 1, higher is better: float32[len(passages)].

        Raises:
            UnavailableError: It cannot say now; the order that the passages came in is the best there is.
            PermanentError: A text is no valid Unicode.
        """
