"""Storage names that the index side and the query side agree on."""

import re

DENSE = "dense"
SPARSE = "bm25"


def collection_name(model: str, dimension: int) -> str:
    """The collection for an embedding model: a different model never reads another's vectors.

    >>> collection_name("sentence-transformers/all-MiniLM-L6-v2", 384)
    'aegis-all-minilm-l6-v2-384'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")
    return f"aegis-{slug}-{dimension}"
