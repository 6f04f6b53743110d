"""Answers to questions asked before, as long as nothing they stand on has changed."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from api.answers.shapes import Answer
from schemas.records import Vector
from schemas.settings import Answers

_SAME = 0.97
_WHILE_CHANGING = 30.0  # seconds that a new document may be hidden by an answer from before it
_WORD = re.compile(r"[^\W_]+")
# Without these two questions may be one; "who" and "when", "one" and "another" are not among them (docs/adr/0018).
_ARTICLES = frozenset(re.findall(r"\w+", "a an the of please der die das den dem des ein eine einen einem einer bitte"))


@dataclass(frozen=True)
class Entry:
    """An answer. ``documents``: the version of each that was read; ``changes``: the index's state before the search."""

    words: tuple[str, ...]
    vector: Vector
    answer: Answer
    documents: Mapping[str, int]
    changes: Hashable
    at: float


class AnswerCache:
    """The last answers, each for one ``scope``: tenant, way to search, model."""

    def __init__(self, settings: Answers, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = settings.cache_entries
        self._ttl = settings.cache_ttl
        self._clock = clock
        self._entries: OrderedDict[tuple[Hashable, str], Entry] = OrderedDict()

    def find(self, scope: Hashable, question: str, vector: Vector, changes: Hashable) -> Entry | None:
        """An entry for the same question, its case and articles aside.

        Whether its documents are as they were is for the caller to see, who may ``drop`` it.
        """
        words = _words(question)
        for (of, _), entry in reversed(list(self._entries.items())):
            if of == scope and _are_one(entry, words, vector):
                return entry if self._is_fresh(entry, changes) else None
        return None

    def add(
        self,
        scope: Hashable,
        question: str,
        vector: Vector,
        answer: Answer,
        *,
        documents: Mapping[str, int],
        changes: Hashable,
    ) -> None:
        """Keep an answer; the oldest goes where there is no room."""
        key = scope, question
        self._entries.pop(key, None)
        self._entries[key] = Entry(_words(question), vector, answer, documents, changes, self._clock())
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def drop(self, entry: Entry) -> None:
        """Forget an entry."""
        self._entries = OrderedDict((key, kept) for key, kept in self._entries.items() if kept is not entry)

    def _is_fresh(self, entry: Entry, changes: Hashable) -> bool:
        age = self._clock() - entry.at
        return age <= (self._ttl if entry.changes == changes else min(self._ttl, _WHILE_CHANGING))


def _are_one(entry: Entry, words: tuple[str, ...], vector: Vector) -> bool:
    """The same words, and in another order only with the same meaning."""
    if entry.words == words:
        return True
    return sorted(entry.words) == sorted(words) and float(entry.vector @ vector) >= _SAME


def _words(question: str) -> tuple[str, ...]:
    return tuple(word for word in _WORD.findall(question.lower()) if word not in _ARTICLES)
