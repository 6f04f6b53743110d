"""Names by any spaCy pipeline: a package (``en_core_web_trf``) or a folder with one."""

import threading
from collections.abc import Sequence
from typing import Any

from processors.batching import in_halves
from processors.errors import PermanentError, UnavailableError
from processors.ner.other_labels import published_type
from processors.ner.recogniser import Span, with_dates

_CONFIDENCE = 0.8  # its pipelines give none
# Components that names do not need; what they share with others (tok2vec, transformer) stays.
_UNNEEDED = (
    "tagger", "parser", "senter", "sentencizer", "morphologizer", "attribute_ruler", "lemmatizer",
    "trainable_lemmatizer", "textcat", "textcat_multilabel",
)  # fmt: skip


class SpacyRecogniser:
    """Finds what a spaCy pipeline sets as entities, as the published types, and DATE by rule as well.

    May be shared by threads, which take turns. Runs on the CPU.

    Args:
        model: An installed package's name, or a folder.
        batch_texts: Texts that the pipeline reads at once.

    Raises:
        ValueError: spaCy or the model is not here, is of another version, or finds no names.
    """

    def __init__(self, model: str, *, batch_texts: int) -> None:
        try:
            import spacy  # seconds to import, and the embedded default has it not
        except ImportError as error:
            raise ValueError(f"names by spaCy's {model} need spaCy: `make full` installs it") from error
        try:
            self._pipeline = spacy.load(model, exclude=_UNNEEDED)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"spaCy's model {model} cannot be loaded; install its package or name its folder: {error}"
            ) from error
        if not any("doc.ents" in self._pipeline.get_pipe_meta(name).assigns for name in self._pipeline.pipe_names):
            raise ValueError(f"spaCy's model {model} finds no names: it has no component that sets doc.ents")
        meta = self._pipeline.meta
        self.name = f"spacy-{meta['lang']}_{meta['name']}-{meta['version']}"
        self._batch_texts = batch_texts
        self._turn = threading.Lock()

    def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """As ``processors.extract.Recogniser.recognise``.

        Raises:
            PermanentError: A text is no valid Unicode.
            UnavailableError: The pipeline failed, or has no memory for one text.
        """
        found: list[list[Span]] = []
        with self._turn:
            for first in range(0, len(texts), self._batch_texts):
                found += in_halves(self._read, texts[first : first + self._batch_texts])
        return [with_dates(text, spans) for text, spans in zip(texts, found, strict=True)]

    def _read(self, texts: Sequence[str]) -> list[list[Span]]:
        try:
            with self._pipeline.memory_zone():  # without it every word ever seen is kept
                return [_spans(doc) for doc in self._pipeline.pipe(texts, batch_size=len(texts))]
        except UnicodeError as error:
            raise PermanentError(f"a text cannot be tokenised, it is no valid Unicode: {error}") from error
        except (ValueError, RuntimeError) as error:
            raise UnavailableError(f"spaCy's {self.name} failed: {error}") from error


def _spans(doc: Any) -> list[Span]:
    typed = ((entity, published_type(entity.label_, entity.text)) for entity in doc.ents)
    return [Span(entity.start_char, entity.end_char, type_, _CONFIDENCE) for entity, type_ in typed if type_]
