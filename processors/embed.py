"""Text in, unit vectors out: tokenise in the caller's thread, then share the device through the micro-batcher."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from tokenizers import Tokenizer

from processors.errors import PermanentError
from processors.micro_batcher import BatchReport, MicroBatcher, Priority
from processors.model_folder import ModelFolder
from processors.runtimes.runtime import Runtime, Tokenised, Vectors

Before = TypeVar("Before")
After = TypeVar("After")


class Observer(Protocol):
    """Is told what an embedder does, in the thread that does it."""

    def batch(self, report: BatchReport) -> None:
        """A forward pass is done."""

    def tokenised(self, seconds: float) -> None:
        """The texts of one call are tokens."""


class _Unobserved:
    def batch(self, report: BatchReport) -> None:
        pass

    def tokenised(self, seconds: float) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()


class Embedder:
    """A sentence encoder: the same texts give the same vectors on both sides.

    May be shared by threads: what they embed at the same time shares forward passes, and a query waits for the one
    pass now running, however much bulk work is queued. A vector depends on what shared its pass, but only in the
    last bits.

    Args:
        folder: The model.
        open_runtime: Loads the encoder, on first use.
        max_batch_tokens: Token budget of one forward pass, padding counted. Small passes stay in the cache and
            keep queries waiting less; a text above the budget has a pass of its own.
        max_queued_tokens: Tokens that may wait for a pass, for each priority.
        lanes: Passes at once.
        observe: Told of every pass.
    """

    def __init__(
        self,
        folder: ModelFolder,
        open_runtime: Callable[[], Runtime],
        *,
        max_batch_tokens: int = 1024,
        max_queued_tokens: int = 65536,
        lanes: int = 1,
        observe: Observer = UNOBSERVED,
    ) -> None:
        self.name = folder.name
        self.dimension = folder.dimension
        self.max_tokens = folder.max_tokens
        self.max_batch_tokens = max_batch_tokens
        self._folder = folder
        self._open_runtime = open_runtime
        self._max_queued_tokens = max_queued_tokens
        self._lanes = lanes
        self._observe = observe
        self._loading = threading.Lock()

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, which neither truncates nor pads. Raises as ``ModelFolder.tokenizer``."""
        return self._folder.tokenizer

    def load(self) -> None:
        """Load the model now rather than on first use.

        Raises:
            ValueError: The tokenizer or the weights are missing or do not fit the configuration.
        """
        with self._loading:
            _ = self.tokenizer, self._batcher

    def close(self) -> None:
        """Let what still waits fail with ``UnavailableError`` and give up the model."""
        if "_batcher" in self.__dict__:
            self._batcher.close()
            del self._batcher

    def submit(
        self, texts: Sequence[str], *, priority: Priority, caller: str = "", deadline: float | None = None
    ) -> Future[Vectors]:
        """Embed texts, in order, when it is their turn; each is cut at ``max_tokens``. They are tokenised here and now.

        Cancelling the future drops what has not run yet; it may end with a ``DeadlineError`` or ``UnavailableError``.

        Args:
            texts: What to embed.
            priority: Interactive goes before bulk.
            caller: Callers of one priority take turns.
            deadline: On ``time.monotonic``; what has not begun by then is dropped.

        Returns:
            float32[len(texts), dimension], rows of unit length.

        Raises:
            PermanentError: A text is no valid Unicode.
            OverloadedError: Too much waits already.
        """
        self.load()
        tokenised = self._prepare(texts)
        lengths = [len(text.ids) for text in tokenised]
        rows = self._batcher.submit(tokenised, lengths, priority=priority, caller=caller, deadline=deadline)
        return mapped(rows, lambda found: np.array(found, np.float32).reshape(len(found), self.dimension))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as bulk work, and wait for them.

        Raises:
            PermanentError: A text is no valid Unicode.
            UnavailableError: The device failed, or is overloaded.
        """
        return self.submit(texts, priority=Priority.BULK).result()

    def embed_query(self, text: str) -> Vectors:
        """Embed one text ahead of all bulk work: float32[dimension] of unit length. Raises as ``embed``."""
        return self.submit([text], priority=Priority.INTERACTIVE).result().reshape(self.dimension)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens that the model reads of these texts, all together.

        Raises:
            PermanentError: A text is no valid Unicode.
        """
        return sum(len(text.ids) for text in self._prepare(texts))

    def _prepare(self, texts: Sequence[str]) -> list[Tokenised]:
        started = time.perf_counter()
        try:
            encodings = self.tokenizer.encode_batch_fast(list(texts))
        except (TypeError, UnicodeError) as error:
            raise PermanentError(f"a text cannot be tokenised, it is no valid Unicode: {error}") from error
        tokenised = [
            Tokenised(text, _truncated(encoding.ids, self.max_tokens))
            for text, encoding in zip(texts, encodings, strict=True)
        ]
        self._observe.tokenised(time.perf_counter() - started)
        return tokenised

    @cached_property
    def _batcher(self) -> MicroBatcher[Tokenised, Vectors]:
        runtime = self._open_runtime()
        return MicroBatcher(
            lambda batch: list(runtime.encode(batch)),
            name=self.name,
            max_batch_tokens=self.max_batch_tokens,
            max_queued_tokens=self._max_queued_tokens,
            lanes=self._lanes,
            observe=self._observe.batch,
        )


def mapped(future: Future[Before], function: Callable[[Before], After]) -> Future[After]:
    """A future of what ``function`` makes of the result; cancelling it cancels the other."""
    outer: Future[After] = Future()

    def settle(done: Future[Before]) -> None:
        if not outer.set_running_or_notify_cancel():
            return
        try:
            outer.set_result(function(done.result()))
        except Exception as error:
            outer.set_exception(error)

    outer.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
    future.add_done_callback(settle)
    return outer


def _truncated(ids: list[int], max_tokens: int) -> list[int]:
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]  # the separator stays last
