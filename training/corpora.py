"""The data sets as texts with mentions: read, cut into texts of the length that the recogniser is given, split."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from training import labels
from training.labels import ANYTHING, Allowed, allowed_in_mention, allowed_outside, types_of

TypesByLabel = Mapping[str, tuple[str, ...]]

MAX_WORDS = 110  # of a text made of sentences that follow one another
TRAINING_DOMAINS = ("politics", "music")  # of CrossNER; science and literature are for evaluation
WIKIGOLD_TRAINING_DOCUMENTS = 109  # of 145; the others are for evaluation


@dataclass(frozen=True)
class Sentence:
    """Words, and mentions as (first word, word behind the last, the data set's label)."""

    words: Sequence[str]
    mentions: Sequence[tuple[int, int, str]]
    lines: Sequence[int] = ()  # words that begin a line


@dataclass(frozen=True)
class Example:
    """A text for training: what each word may be labelled."""

    source: str
    words: Sequence[str]
    lines: Sequence[int]
    allowed: Sequence[Allowed]
    has_mention: bool


@dataclass(frozen=True)
class Gold:
    """A text for evaluation, a sentence per line and one space between words, and its mentions by characters."""

    text: str
    mentions: Sequence[tuple[int, int, str]]


_COMMENT = re.compile(r"#\t|# \w+ =")  # of GermEval, of UNER; a tweet may begin with # as well


def read_bio(path: Path, *, word: int, label: int, separator: str | None = "\t") -> Iterator[list[Sentence]]:
    """Documents of a file with a word per line. Columns count from 0; IOB1 and IOB2 alike."""
    document: list[Sentence] = []
    rows: list[tuple[str, str]] = []
    for line in [*path.read_text(encoding="utf-8").splitlines(), "", "# newdoc"]:
        columns = line.split(separator)
        if line.startswith("# newdoc") or line.startswith("-DOCSTART-"):
            if document:
                yield document
            document = []
        elif not line.strip():
            if rows:
                document.append(_sentence(rows))
            rows = []
        elif len(columns) > label and columns[word].strip() and not _COMMENT.match(line):
            rows.append((columns[word].strip(), columns[label].strip()))


def _sentence(rows: Sequence[tuple[str, str]]) -> Sentence:
    mentions: list[tuple[int, int, str]] = []
    previous = ""
    for position, (_, tag) in enumerate(rows):
        place, _, kind = ("O" if tag == "B-O" else tag).partition("-")  # UNER has some
        if place == "B" or (place == "I" and previous != kind):
            mentions.append((position, position + 1, kind))
        elif place == "I":
            mentions[-1] = (mentions[-1][0], position + 1, kind)
        previous = kind
    return Sentence([word for word, _ in rows], mentions)


def joined(document: Sequence[Sentence], max_words: int) -> Iterator[Sentence]:
    """Sentences that follow one another as texts of at most so many words, where a sentence is not longer itself."""
    words: list[str] = []
    mentions: list[tuple[int, int, str]] = []
    lines: list[int] = []
    for sentence in document:
        if words and len(words) + len(sentence.words) > max_words:
            yield Sentence(words, mentions, lines)
            words, mentions, lines = [], [], []
        lines.append(len(words))
        mentions += [(start + len(words), end + len(words), kind) for start, end, kind in sentence.mentions]
        words += sentence.words
    if words:
        yield Sentence(words, mentions, lines)


def example(source: str, sentence: Sentence, mapping: TypesByLabel) -> Example:
    """What each word may be, by the data set's own labels."""
    allowed = [allowed_outside(word) for word in sentence.words]
    for start, end, kind in sentence.mentions:
        types = types_of(kind, " ".join(sentence.words[start:end]), mapping)
        for position in range(start, end):
            allowed[position] = ANYTHING if types is None else allowed_in_mention(types, first=position == start)
    return Example(source, sentence.words, sentence.lines, allowed, bool(sentence.mentions))


def gold(sentence: Sentence) -> Gold:
    """The text that the recogniser is given, and what it should find."""
    starts, at = [], 0
    for word in sentence.words:
        starts.append(at)
        at += len(word) + 1
    spans = [
        (starts[start], starts[end - 1] + len(sentence.words[end - 1]), kind) for start, end, kind in sentence.mentions
    ]
    return Gold(text_of(sentence), spans)


def text_of(sentence: Sentence | Example) -> str:
    """Its words, one space between them or a line's end."""
    gaps = ["\n" if position in sentence.lines else " " for position in range(len(sentence.words))]
    return "".join(gap + word for gap, word in zip(gaps, sentence.words, strict=True))[1:]


def training_examples(folder: Path) -> Iterator[Example]:
    """All that is annotated and not held out."""
    for document in read_bio(folder / "ner/uner_english_ewt/en_ewt-ud-train.iob2", word=1, label=2):
        yield from (example("uner", text, labels.UNER) for text in joined(document, MAX_WORDS))
    for document in list(_wikigold(folder))[:WIKIGOLD_TRAINING_DOCUMENTS]:
        yield from (example("wikigold", text, labels.WIKIGOLD) for text in joined(document, MAX_WORDS))
    yield from (example("crossner", text, labels.CROSSNER) for text in _crossner(folder, TRAINING_DOMAINS))
    for part in ("train", "dev"):
        for document in read_bio(folder / f"ner/wnut17/{part}.conll", word=0, label=1):
            yield from (example("wnut", text, labels.WNUT) for text in document)
    for document in read_bio(folder / "de/germeval2014/NER-de-test.tsv", word=1, label=2):
        yield from (example("germeval", text, labels.GERMEVAL) for text in document)


def held_out(folder: Path) -> dict[str, tuple[list[Gold], TypesByLabel]]:
    """What is never trained on, by name, with the mapping of its labels."""
    uner = read_bio(folder / "ner/uner_english_ewt/en_ewt-ud-dev.iob2", word=1, label=2)
    wikigold = list(_wikigold(folder))[WIKIGOLD_TRAINING_DOCUMENTS:]
    wnut = read_bio(folder / "ner/wnut17/test.conll", word=0, label=1)
    germeval = read_bio(folder / "de/germeval2014/NER-de-dev.tsv", word=1, label=2)
    sets = {
        "UNER English-EWT dev": (_golds(uner, MAX_WORDS), labels.UNER_DEV),
        "Re-DocRED dev": ([gold(text) for text in _redocred(folder)], labels.REDOCRED),
        "WikiGold held out": (_golds(wikigold, MAX_WORDS), labels.WIKIGOLD),
    }
    trained = {" ".join(sentence.words) for sentence in _crossner(folder, TRAINING_DOMAINS)}
    for domain in ("science", "literature"):
        golds = [gold(sentence) for sentence in _crossner(folder, [domain], parts=["test"])]
        sets[f"CrossNER {domain}"] = ([gold for gold in golds if gold.text not in trained], labels.CROSSNER)
    sets["WNUT-17 test"] = (_golds(wnut, 1), labels.WNUT)
    sets["GermEval dev"] = (_golds(germeval, 1), labels.GERMEVAL)
    return sets


def _golds(documents: Iterator[list[Sentence]] | list[list[Sentence]], max_words: int) -> list[Gold]:
    return [gold(text) for document in documents for text in joined(document, max_words)]


def _crossner(
    folder: Path, domains: Sequence[str], parts: Sequence[str] = ("train", "dev", "test")
) -> Iterator[Sentence]:
    for domain, part in product(domains, parts):
        for document in read_bio(folder / f"ner/crossner/{domain}/{part}.txt", word=0, label=1):
            yield from document


def _wikigold(folder: Path) -> Iterator[list[Sentence]]:
    return read_bio(folder / "ner/wikigold/wikigold.conll.txt", word=0, label=1, separator=" ")


def _redocred(folder: Path) -> Iterator[Sentence]:
    """A paragraph each. Of mentions that overlap, the longest counts."""
    for document in json.loads((folder / "re/redocred/dev_revised.json").read_text(encoding="utf-8")):
        taken: dict[int, set[int]] = {}
        mentions: list[list[tuple[int, int, str]]] = [[] for _ in document["sents"]]
        found = {(m["sent_id"], *m["pos"], m["type"]) for vertex in document["vertexSet"] for m in vertex}
        for sentence, start, end, kind in sorted(found, key=lambda m: (m[1] - m[2], m)):
            places = set(range(start, end))
            if kind not in ("TIME", "NUM") and places.isdisjoint(taken.setdefault(sentence, set())):
                taken[sentence] |= places
                is_people = kind in ("LOC", "MISC") and labels.is_people(
                    " ".join(document["sents"][sentence][start:end])
                )
                mentions[sentence].append((start, end, "NORP" if is_people else kind))
        sentences = [
            Sentence([re.sub(r"\s+", "_", word) or "_" for word in words], sorted(found_here))
            for words, found_here in zip(document["sents"], mentions, strict=True)
        ]
        yield from joined(sentences, 200)
