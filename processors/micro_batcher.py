"""Many callers, one device: what they submit is queued, and runs in micro-batches of similar length."""

import atexit
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from processors.batch_queue import BatchQueue, Entry, Priority, Submission
from processors.errors import DeadlineError, OverloadedError, UnavailableError

__all__ = ["BatchReport", "MicroBatcher", "Priority"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_IDLE = 30.0  # seconds until a lane's thread ends; the next submission starts another
_RECOVERY = 1.05  # growth of a lowered budget per batch: doubled after 14
_SHRUNK_MOST = 16
_UNMEASURED_RETRY = 1.0
_GUESTS = 5.0  # seconds after an interactive submission during which bulk passes stay short
_GUEST_SHARE = 4
_SHORTEST_RETRY = 0.001
_MEMORY = 2.0  # busy seconds after which a measured throughput counts half


@dataclass(frozen=True)
class BatchReport:
    """One forward pass. Tokens are the items' own; padded, every item counts as the longest."""

    items: int
    tokens: int
    padded_tokens: int
    queue_seconds: Sequence[float]
    run_seconds: float
    queued_tokens: int


class MicroBatcher(Generic[Item, Result]):
    """Runs what threads submit, interactive before bulk, callers in turn, in batches of at most ``max_batch_tokens``.

    There is no waiting for a batch to fill: while one runs, the next one gathers. While interactive work keeps coming,
    passes of bulk work are a quarter as long, so that it waits for less. Threads are started when there is work and
    end when there is none.

    Args:
        run: One forward pass: items in, one result per item out. It is called by up to ``lanes`` threads.
        name: For messages and threads.
        max_batch_tokens: Budget of one pass, padding counted; an item above it has a pass of its own.
        max_queued_tokens: Tokens that may wait, for each priority. A submission of more is taken if nothing waits.
        lanes: Passes at once. More than one keeps a device busier, and a query waiting for that many.
        observe: Told of every pass, in the lane's thread.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        name: str,
        max_batch_tokens: int,
        max_queued_tokens: int,
        lanes: int = 1,
        observe: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._run = run
        self._name = name
        self._max_batch_tokens = max_batch_tokens
        self._budget = float(max_batch_tokens)
        self._max_queued_tokens = max_queued_tokens
        self._lanes = lanes
        self._observe = observe
        self._changed = threading.Condition()
        self._queues = {priority: BatchQueue[Item, Result]() for priority in Priority}
        self._live: set[Submission[Item, Result]] = set()
        self._threads: set[threading.Thread] = set()
        self._running_tokens = 0
        self._taken_at = 0.0
        self._throughput = _Throughput()
        self._guest_until = -math.inf
        self._closed = False
        _OPEN.add(self)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a pass."""
        return sum(queue.tokens for queue in self._queues.values())

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput while there is more to do than one pass holds; None before the first pass."""
        rate = self._throughput.rate
        return None if rate is None else rate * self._lanes

    def submit(
        self,
        items: Sequence[Item],
        lengths: Sequence[int],
        *,
        priority: Priority,
        caller: str = "",
        deadline: float | None = None,
    ) -> Future[list[Result]]:
        """Queue items of ``lengths`` tokens; the future's results are in their order.

        Cancelling the future drops what has not run yet. What has not begun by ``deadline`` (``time.monotonic``) ends
        with a ``DeadlineError``; what ``run`` raises ends the submissions that were in that batch, and no others.

        Raises:
            OverloadedError: Too much waits at this priority.
            UnavailableError: The batcher is closed.
        """
        submission = Submission[Item, Result](priority, caller, math.inf if deadline is None else deadline, len(items))
        if not items:
            submission.future.set_result([])
            return submission.future
        entries = [
            Entry(submission, position, item, length)
            for position, (item, length) in enumerate(zip(items, lengths, strict=True))
        ]
        with self._changed:
            if self._closed:
                raise UnavailableError(f"{self._name} is closed")
            self._admit(sum(lengths), priority)
            if priority is Priority.INTERACTIVE:
                self._guest_until = time.monotonic() + _GUESTS
            self._queues[priority].add(submission, entries)
            self._live.add(submission)
            if len(self._threads) < self._lanes:
                thread = threading.Thread(target=self._lane, name=f"{self._name}-lane", daemon=True)
                self._threads.add(thread)
                thread.start()
            self._changed.notify()
        submission.future.add_done_callback(lambda future: self._cancelled(submission) if future.cancelled() else None)
        return submission.future

    def close(self) -> None:
        """Let what is not done fail with ``UnavailableError``; return when nothing runs any more."""
        with self._changed:
            self._closed = True
            threads, live = list(self._threads), list(self._live)
            self._changed.notify_all()
        self._fail(live, UnavailableError(f"{self._name} is closed"))
        for thread in threads:
            thread.join()

    def _admit(self, tokens: int, priority: Priority) -> None:
        excess = self._queues[priority].tokens + min(tokens, self._max_queued_tokens) - self._max_queued_tokens
        if excess <= 0:
            return
        higher = sum(queue.tokens for other, queue in self._queues.items() if other < priority)
        message = f"{self._name}: {self._queues[priority].tokens} tokens wait already"
        raise OverloadedError(message, retry_after=self._seconds_until_taken(higher + excess))

    def _seconds_until_taken(self, tokens: int) -> float:
        """When the pass begins that takes the last of ``tokens``: the next one begins when the running one ends."""
        rate = self.tokens_per_second
        if rate is None:
            return _UNMEASURED_RETRY
        left = self._running_tokens / rate - (time.monotonic() - self._taken_at)
        passes_between = math.ceil(tokens / self._budget) - 1
        return max(left, 0.0) + max(passes_between * self._budget / rate, _SHORTEST_RETRY)

    def _lane(self) -> None:
        try:
            while batch := self._next():
                try:
                    self._attempt(batch, time.monotonic())
                finally:
                    with self._changed:
                        self._running_tokens -= _tokens(batch)
        except BaseException as error:
            crash = UnavailableError(f"{self._name} crashed: {error!r}")
            crash.__cause__ = error
            with self._changed:
                self._threads.discard(threading.current_thread())  # the next submission starts another
                live = list(self._live)
            self._fail(live, crash)
            raise

    def _next(self) -> list[Entry[Item, Result]]:
        """The next batch, waited for; none when there was nothing to do for long."""
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._closed or self.queued_tokens, _IDLE) or self._closed:
                    self._threads.discard(threading.current_thread())  # now, or a submission would count on this lane
                    return []
                batch, overdue = self._take()
                self._running_tokens += _tokens(batch)
                self._taken_at = time.monotonic()
            self._fail(overdue, DeadlineError(f"{self._name}: the deadline passed before it was its turn"))
            if batch:
                return batch

    def _take(self) -> tuple[list[Entry[Item, Result]], list[Submission[Item, Result]]]:
        """A batch of what is still in time, and the submissions found to be too late."""
        priority, queue = next(waiting for waiting in self._queues.items() if waiting[1].tokens)
        now = time.monotonic()
        guests = priority is Priority.BULK and now < self._guest_until
        batch = queue.take(int(self._budget / _GUEST_SHARE if guests else self._budget))
        overdue = {entry.submission for entry in batch if entry.submission.deadline <= now}
        return [entry for entry in batch if entry.submission not in overdue], list(overdue)

    def _attempt(self, batch: Sequence[Entry[Item, Result]], taken_at: float) -> None:
        batch = [entry for entry in batch if not entry.submission.future.done()]
        if not batch:
            return
        started = time.monotonic()
        try:
            results = self._run([entry.item for entry in batch])
            pairs = list(zip(batch, results, strict=True))
        except MemoryError as error:
            self._halve(batch, taken_at, error)
        except Exception as error:
            self._fail({entry.submission for entry in batch}, error)
        else:
            self._deliver(pairs, taken_at, time.monotonic() - started)

    def _halve(self, batch: Sequence[Entry[Item, Result]], taken_at: float, error: MemoryError) -> None:
        if len(batch) == 1:
            too_large = UnavailableError(f"{self._name}: not enough memory for one item of {batch[0].length} tokens")
            too_large.__cause__ = error
            self._fail([batch[0].submission], too_large)
            return
        with self._changed:
            self._budget = max(_padded(batch) / 2, self._max_batch_tokens / _SHRUNK_MOST)
        middle = len(batch) // 2
        self._attempt(batch[:middle], taken_at)
        self._attempt(batch[middle:], taken_at)

    def _deliver(
        self, pairs: Sequence[tuple[Entry[Item, Result], Result]], taken_at: float, run_seconds: float
    ) -> None:
        batch = [entry for entry, _ in pairs]
        tokens = _tokens(batch)
        with self._changed:
            for entry, result in pairs:
                entry.submission.put(entry.position, result)
            finished = [one for one in {entry.submission for entry in batch} if one.is_complete and self._forget(one)]
            self._budget = min(self._budget * _RECOVERY, self._max_batch_tokens)
            queued_tokens = self.queued_tokens
            self._throughput.add(tokens, run_seconds, backlog=queued_tokens > 0)
        for submission in finished:
            if submission.future.set_running_or_notify_cancel():
                submission.future.set_result(submission.results())
        waits = [taken_at - entry.submission.queued_at for entry in batch]
        self._observe(BatchReport(len(batch), tokens, _padded(batch), waits, run_seconds, queued_tokens))

    def _fail(self, submissions: Iterable[Submission[Item, Result]], error: Exception) -> None:
        for submission in submissions:
            with self._changed:
                live = self._forget(submission)
            if live and submission.future.set_running_or_notify_cancel():
                submission.future.set_exception(error)

    def _cancelled(self, submission: Submission[Item, Result]) -> None:
        with self._changed:
            live = self._forget(submission)
        if live:
            submission.future.set_running_or_notify_cancel()

    def _forget(self, submission: Submission[Item, Result]) -> bool:
        """Drop what waits of it; whether the caller is now the one, and the only one, to settle its future."""
        if submission not in self._live:
            return False
        self._live.remove(submission)
        self._queues[submission.priority].drop(submission)
        return True


@dataclass
class _Throughput:
    """Tokens per second of passes that left others waiting: a lone query says nothing of how fast a queue drains."""

    rate: float | None = None
    _tokens: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _saturated: bool = field(default=False, init=False)

    def add(self, tokens: int, seconds: float, *, backlog: bool) -> None:
        if self._saturated and not backlog:
            return
        if backlog and not self._saturated:
            self._saturated, self._tokens, self._seconds = True, 0.0, 0.0
        kept = 0.5 ** (seconds / _MEMORY)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + max(seconds, 1e-6)
        self.rate = self._tokens / self._seconds


def _tokens(batch: Iterable[Entry[Item, Result]]) -> int:
    return sum(entry.length for entry in batch)


def _padded(batch: Sequence[Entry[Item, Result]]) -> int:
    return max(entry.length for entry in batch) * len(batch)


_OPEN: WeakSet[MicroBatcher[Any, Any]] = WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread inside a device's library must not meet the end of the interpreter."""
    for batcher in list(_OPEN):
        batcher.close()
