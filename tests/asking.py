"""Queries at a steady rate, however long each takes, and how each of them ended."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import httpx

_AT_ONCE = 32


@dataclass
class Asking:
    """Asks while it is entered, for words that are in one document each; each query over a connection of its own.

    ``answered`` has when each answer came, in seconds since the epoch, and how long it took.
    """

    api_url: str
    expected: Mapping[str, str]
    per_second: float
    answered: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> "Asking":
        """Start asking."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asking")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking, and wait for the last answers."""
        self._stopping.set()
        self._thread.join()

    def longest_gap(self) -> float:
        """Seconds between two answers that came one after the other."""
        moments = sorted(at for at, _ in self.answered)
        return max((after - before for before, after in pairwise(moments)), default=0.0)

    def slowest(self, *, around: float = 0.0, within: float = float("inf")) -> float:
        """Seconds of the slowest answer of those that came ``within`` seconds of a moment."""
        return max((took for at, took in self.answered if abs(at - around) < within), default=0.0)

    def _run(self) -> None:
        words, asked, due = list(self.expected), 0, time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                due += 1 / self.per_second
                threads.submit(self._ask, words[asked % len(words)])
                asked += 1

    def _ask(self, word: str) -> None:
        started = time.monotonic()
        try:
            response = httpx.post(f"{self.api_url}/api/v1/search", json={"query": word}, timeout=60)
            response.raise_for_status()
            if self.expected[word] not in {hit["document_id"] for hit in response.json()["hits"]}:
                self.wrong.append(word)
        except httpx.HTTPError as error:
            self.failed.append(f"{word}: {error!r}")
        self.answered.append((time.time(), time.monotonic() - started))
