"""What may leave: no address that no source has, nothing a browser would load, nothing of the prompt."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from processors.answers.sources import Source

_ADDRESS = re.compile(r"(?:\b(?:https?|ftp|file|javascript|vbscript|data):|\bwww\.)[^\s<>()\[\]\"'`]+", re.IGNORECASE)
_IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)|^[ \t]*\[[^\]]+\]:[ \t]*\S+", re.MULTILINE)
_TAG = re.compile(
    r"</?(?:a|base|embed|form|iframe|img|input|link|meta|object|script|style|svg|video|audio)\b[^>]*>?", re.IGNORECASE
)
_WORD = re.compile(r"\w+")
_LEAKED_WORDS = 8
REMOVED = "[removed]"


class Guarded(NamedTuple):
    """A text that may leave, and what was taken out of it: ``image``, ``link``, ``tag``, ``prompt``."""

    text: str
    removed: tuple[str, ...]


class Guard:
    """Knows the addresses of the sources and the words of the prompt.

    Args:
        sources: What the model was shown.
        prompt: What nobody is to see.
    """

    def __init__(self, sources: Sequence[Source], prompt: str) -> None:
        texts = [source.harmless_text for source in sources]
        self._addresses = {_bare(address) for text in texts for address in _ADDRESS.findall(text)}
        words = _words(prompt)
        known = {run for text in texts for run in _runs(_words(text))}
        self._secret = set(_runs(words)) - known

    def clean(self, text: str) -> Guarded:
        """The text without what may not leave."""
        if self._secret.intersection(_runs(_words(text))):
            return Guarded(REMOVED + text[len(text.rstrip()) :], ("prompt",))
        removed: list[str] = []

        def take(kind: str, instead: str = REMOVED) -> str:
            removed.append(kind)
            return instead

        text = _IMAGE.sub(lambda found: take("image"), text)
        text = _TAG.sub(lambda found: take("tag", ""), text)
        text = _LINK.sub(lambda found: found[0] if self._is_known(found[2]) else take("link", found[1] or ""), text)
        text = _ADDRESS.sub(lambda found: found[0] if self._is_known(found[0]) else take("link"), text)
        return Guarded(text, tuple(dict.fromkeys(removed)))

    def _is_known(self, address: str | None) -> bool:
        return address is not None and _bare(address) in self._addresses


def _bare(address: str) -> str:
    return address.strip().rstrip(".,;:!?*_")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + _LEAKED_WORDS]) for start in range(len(words) - _LEAKED_WORDS + 1)]
