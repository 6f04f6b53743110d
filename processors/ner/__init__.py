"""Named entities: people, organisations, places and other names in texts."""

from processors.ner.recogniser import NamedEntityRecogniser, Span

__all__ = ["NamedEntityRecogniser", "Span"]
