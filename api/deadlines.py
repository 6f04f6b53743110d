"""Waiting no longer than one may."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. What is late, or wanted no more, is left to its thread, which cannot be stopped.

    Raises:
        TimeoutError: It is not there in time.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise TimeoutError(f"not done in {seconds:g} s")
        return task.result()
    finally:
        task.cancel()
