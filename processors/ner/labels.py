"""The types of entities and their BIO labels, in the order of the model's outputs."""

import numpy as np
from numpy.typing import NDArray

TYPES = ("PERSON", "ORG", "LOC", "NORP", "PRODUCT", "EVENT", "WORK", "MISC")
"""NORP is a people, a language or a faith as an adjective or noun ("German"); MISC any other name."""

OUTSIDE = 0
LABELS = ("O", *(f"{place}-{type_}" for type_ in TYPES for place in "BI"))
FORBIDDEN = np.float32(-1e4)


def begin(type_: int) -> int:
    """Label of a mention's first word."""
    return 1 + 2 * type_


def inside(type_: int) -> int:
    """Label of a mention's other words."""
    return 2 + 2 * type_


def starts_mask() -> NDArray[np.float32]:
    """Added to the scores of a text's first label: a text does not begin inside a mention."""
    mask = np.zeros(len(LABELS), np.float32)
    mask[2::2] = FORBIDDEN
    return mask


def transitions_mask() -> NDArray[np.float32]:
    """Added to the scores of going from a label (row) to the next (column)."""
    mask = np.zeros((len(LABELS), len(LABELS)), np.float32)
    mask[:, 2::2] = FORBIDDEN
    for type_ in range(len(TYPES)):
        mask[[begin(type_), inside(type_)], inside(type_)] = 0
    return mask
