"""Texts of similar length share a forward pass."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from processors.errors import UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first, whose padded size is at most ``max_tokens``.

    >>> list(micro_batches([2, 9, 3, 4], 8))
    [[1], [3, 2], [0]]
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def padded(texts: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Piece ids [texts, pieces], padded with 0, and a mask of what is not padding."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(ids)
    for row, pieces in enumerate(texts):
        ids[row, : len(pieces)] = pieces
        mask[row, : len(pieces)] = 1
    return ids, mask


def in_halves(run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """What ``run`` makes of the items, one each: of all at once or, while that takes too much memory, of half.

    Raises:
        UnavailableError: There is not enough memory for one item.
    """
    try:
        return run(items)
    except MemoryError as error:
        if len(items) == 1:
            raise UnavailableError(f"not enough memory: {error}") from error
    middle = len(items) // 2
    return [*in_halves(run, items[:middle]), *in_halves(run, items[middle:])]
