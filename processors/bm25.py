"""Sparse BM25 vectors; the store multiplies them with the IDF of its own collection.

One collection holds English and German, and one stemmer for both costs either of them (nDCG@10 of XQuAD-de is
.940 with the English stemmer, of SciFact .669 with the German one, against .950 and .688 with this). So a document
is stemmed in the language it is written in, and a query, too short to tell, in both: a stem that its documents
do not have finds nothing.
"""

import qdrant_edge as qdrant

from processors.errors import PermanentError
from processors.lexicon import is_german

SparseVector = tuple[list[int], list[float]]

# Terms without stop words in a chunk of the default size; it was measured to rank better than the library's 256.
_AVERAGE_TERMS = 100


class Bm25Encoder:
    """Texts as sparse vectors of term weights, ``(indices, values)``; terms are hashed, there is no vocabulary."""

    def __init__(self) -> None:
        self._english = _bm25(qdrant.SnowballLanguage.English)
        self._german = _bm25(qdrant.SnowballLanguage.German)

    def document(self, text: str) -> SparseVector:
        """Term frequencies, saturated and length-normalised.

        Raises:
            PermanentError: The text is no valid Unicode.
        """
        encoder = self._german if is_german(text) else self._english
        vector = encoder.embed_document(_checked(text))
        return vector.indices, vector.values

    def query(self, text: str) -> SparseVector:
        """Weight 1 for each distinct term; nothing for a query of stop words only. Raises as ``document``."""
        text = _checked(text)
        indices = dict.fromkeys(
            index for encoder in (self._english, self._german) for index in encoder.embed_query(text).indices
        )
        return list(indices), [1.0] * len(indices)


def _bm25(language: qdrant.SnowballLanguage) -> qdrant.Bm25:
    stopwords = qdrant.StopwordsSet(languages={qdrant.Language.English, qdrant.Language.German})
    stemmer = qdrant.SnowballParams(language)
    return qdrant.Bm25(qdrant.Bm25Config(avg_len=_AVERAGE_TERMS, stopwords=stopwords, stemmer=stemmer))


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PermanentError(f"a text cannot be indexed, it is no valid Unicode: {error}") from error
    return text
