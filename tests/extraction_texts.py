"""Real documents of about 500 words to measure extraction with: encyclopedic and technical ones in turn."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from processors import build
from schemas.settings import Settings

DATA = Path(os.environ.get("AEGIS_DATA", "../shared/data"))
ARTICLES = ("wikipedia_redocred_txt/*.txt",)
TECHNICAL = ("kubernetes_community/**/*.md", "prometheus_md/**/*.md", "python_peps_rst/**/*.rst")

_LEAST, _MOST = 450, 600


@dataclass(frozen=True)
class Document:
    """A text, and its chunks as the system cuts plain text."""

    text: str
    chunks: Sequence[str]

    @property
    def words(self) -> int:
        return len(self.text.split())


def documents(count: int) -> list[Document]:
    """Articles of Wikipedia, a few to a document; and the beginnings of meeting notes, documentation and PEPs.

    Raises:
        SystemExit: There are not so many.
    """
    articles = _texts(chain.from_iterable(map(_paragraphs, _files(ARTICLES))))
    beginnings = (text for path in _files(TECHNICAL) for text in list(_texts(_paragraphs(path)))[:1])
    texts = [text for pair in zip(articles, beginnings, strict=False) for text in pair][:count]
    if len(texts) < count:
        raise SystemExit(f"{len(texts)} documents in {DATA / 'demo_corpus'} of {count}; set AEGIS_DATA")
    splitter = build.build_splitter(Settings(), build.build_embedder(Settings()))
    return [Document(text, [piece.text for piece in splitter.split(text, markdown=False)]) for text in texts]


def _files(patterns: Sequence[str]) -> list[Path]:
    """Those of each pattern in turn."""
    files = [sorted((DATA / "demo_corpus").glob(pattern)) for pattern in patterns]
    return [path for _, _, path in sorted((place, of[0], path) for of in files for place, path in enumerate(of))]


def _paragraphs(path: Path) -> list[str]:
    return re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))


def _texts(paragraphs: Iterable[str]) -> Iterator[str]:
    """Paragraphs that follow one another, from 450 words on; what is longer than 600 is left out."""
    taken: list[str] = []
    for paragraph in paragraphs:
        taken.append(paragraph)
        words = sum(len(one.split()) for one in taken)
        if words >= _LEAST:
            if words <= _MOST:
                yield "\n\n".join(taken)
            taken = []
