"""What waits for a device at one priority: callers in turn, items beside others of like length."""

import time
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A pass costs about as much as this many tokens more in it: up to there, padding is cheaper than two passes.
_MAX_PADDING = 8


class Priority(IntEnum):
    """Who goes first. Batches hold one priority only: a query does not pay for bulk work beside it."""

    INTERACTIVE = 0
    BULK = 1


class Submission(Generic[Item, Result]):
    """What one caller wants at once; its items may run in several batches."""

    def __init__(self, priority: Priority, caller: str, deadline: float, size: int) -> None:
        self.future: Future[list[Result]] = Future()
        self.priority = priority
        self.caller = caller
        self.deadline = deadline
        self.queued_at = time.monotonic()
        self.waiting: list[Entry[Item, Result]] = []
        self._results: dict[int, Result] = {}
        self._size = size

    @property
    def is_complete(self) -> bool:
        """Whether every item has its result."""
        return len(self._results) == self._size

    def put(self, position: int, result: Result) -> None:
        """Note the result of one item."""
        self._results[position] = result

    def results(self) -> list[Result]:
        """All results, in the order of the items."""
        return [self._results[position] for position in range(self._size)]


@dataclass(eq=False, slots=True)
class Entry(Generic[Item, Result]):
    """One item that waits."""

    submission: Submission[Item, Result]
    position: int
    item: Item
    length: int
    order: int = field(default=0)
    is_queued: bool = field(default=True)


class BatchQueue(Generic[Item, Result]):
    """Not safe for threads: its owner holds a lock."""

    def __init__(self) -> None:
        self.tokens = 0
        self._entries: list[Entry[Item, Result]] = []  # by length
        self._callers: OrderedDict[str, OrderedDict[Submission[Item, Result], None]] = OrderedDict()
        self._orders = 0

    def add(self, submission: Submission[Item, Result], entries: Sequence[Entry[Item, Result]]) -> None:
        """Queue all items of a submission."""
        for entry in entries:
            self._orders += 1
            entry.order = self._orders
            insort(self._entries, entry, key=_key)
            self.tokens += entry.length
        submission.waiting = sorted(entries, key=_key)
        self._callers.setdefault(submission.caller, OrderedDict())[submission] = None

    def take(self, budget: int) -> list[Entry[Item, Result]]:
        """The longest item of the next caller's oldest submission, with the neighbours that fit into its batch."""
        caller = next(iter(self._callers))
        self._callers.move_to_end(caller)
        longest = next(iter(self._callers[caller])).waiting[-1]
        place = bisect_left(self._entries, _key(longest), key=_key)
        reach = budget // longest.length + 1
        start = max(0, place - reach)
        lengths = [entry.length for entry in self._entries[start : place + reach]]
        low, high = window(lengths, place - start, budget)
        batch = self._entries[start + low : start + high]
        del self._entries[start + low : start + high]
        for entry in batch:
            self._taken(entry)
        return batch

    def drop(self, submission: Submission[Item, Result]) -> None:
        """Forget what still waits of a submission."""
        for entry in [entry for entry in submission.waiting if entry.is_queued]:
            del self._entries[bisect_left(self._entries, _key(entry), key=_key)]
            self._taken(entry)

    def _taken(self, entry: Entry[Item, Result]) -> None:
        entry.is_queued = False
        self.tokens -= entry.length
        submission = entry.submission
        while submission.waiting and not submission.waiting[-1].is_queued:
            submission.waiting.pop()
        if not submission.waiting:
            submissions = self._callers[submission.caller]
            del submissions[submission]
            if not submissions:
                del self._callers[submission.caller]


def window(lengths: Sequence[int], place: int, budget: int) -> tuple[int, int]:
    """The range around ``place`` of ascending lengths that shares a batch: alike, and padded within the budget.

    >>> window([2, 58, 60, 66, 200], 2, 210)
    (1, 4)
    """
    high = place
    while (
        high + 1 < len(lengths)
        and lengths[high + 1] <= lengths[place] + _MAX_PADDING
        and lengths[high + 1] * (high + 2 - place) <= budget
    ):
        high += 1
    alike = bisect_left(lengths, lengths[high] - _MAX_PADDING)
    return min(place, max(alike, high + 1 - budget // lengths[high])), high + 1


def _key(entry: Entry[Item, Result]) -> tuple[int, int]:
    return entry.length, entry.order
