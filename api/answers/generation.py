"""Reading a language model's answer from the event loop, so that leaving stops the server's work."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from anyio import to_thread

from api import pools
from api.ports import Chat, Reply
from processors.breaker import Breaker
from processors.errors import UnavailableError
from processors.llm import RefusedError, Turn
from processors.routing.budgets import BudgetError

_NOT_ITS_FAULT = (RefusedError, BudgetError)  # this question's, and the purse's


class Generation:
    """A language model behind a breaker. ``threads`` answers at once are read, by the ``pool`` of that name."""

    def __init__(self, chat: Chat, *, breaker: Breaker, threads: int, pool: str = "language model") -> None:
        self.name = chat.name
        self._breaker = breaker
        self._chat = chat
        self._threads = pools.threads(pool, threads)

    async def pieces(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int,
        within: float,
        follow: Callable[[Reply], None] = lambda reply: None,
    ) -> AsyncGenerator[str, None]:
        """What the model says, as it comes; leaving early closes the connection to it.

        ``follow`` is given the reply before its first piece, to look at while it comes and afterwards.

        Raises:
            TimeoutError: It is not done ``within`` seconds.
            UnavailableError: It is not asked now, fails, or breaks off.
        """
        self._breaker.admit()
        reply = self._chat.stream(turns, max_tokens=max_tokens, timeout=within + 1)  # ours ends first
        follow(reply)
        deadline = asyncio.get_running_loop().time() + within
        try:
            while (piece := await self._next(reply, deadline)) is not None:
                yield piece
        except _NOT_ITS_FAULT:
            raise
        except (UnavailableError, TimeoutError):
            self._breaker.failed()
            raise
        finally:
            asyncio.get_running_loop().run_in_executor(
                None, reply.close
            )  # which may note what it cost, and wait for that
        self._breaker.succeeded()

    async def whole(self, turns: Sequence[Turn], *, max_tokens: int, within: float) -> str:
        """All that the model says. Raises as ``pieces``."""
        said = ""
        async with aclosing(self.pieces(turns, max_tokens=max_tokens, within=within)) as pieces:
            async for piece in pieces:
                said += piece
        return said

    async def _next(self, reply: Reply, deadline: float) -> str | None:
        async with asyncio.timeout_at(deadline):
            return await to_thread.run_sync(_next, reply, limiter=self._threads, abandon_on_cancel=True)


def _next(reply: Reply) -> str | None:
    try:
        return next(reply)
    except StopIteration:
        return None
