"""A stage: one logical step of a document's way, and how a batch of its records is handled."""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel
from structlog.contextvars import bound_contextvars

from processors.errors import FatalError, PermanentError, PipelineError, TransientError, UnavailableError
from schemas.records import StageName
from schemas.settings import Batch
from streams.record import Record

In = TypeVar("In")
Outputs = Sequence[BaseModel]

_MAX_LOGGED = 32


@dataclass(frozen=True)
class Stage(Generic[In]):
    """What a stage does; how it is run is the agent's affair.

    ``process`` turns a batch into one sequence of outputs per input, in order. It may raise ``PartialError`` when it
    knows which record failed; any other ``PipelineError`` makes the agent halve the batch to find it.
    """

    name: StageName
    batch: Batch
    decode: Callable[[Record], In]
    process: Callable[[Sequence[In]], Sequence[Outputs]]
    close: Callable[[], None] = lambda: None


class PartialError(Exception):
    """Some of a batch is done: the outputs of the records before the one that failed, and why it failed."""

    def __init__(self, outputs: Sequence[Outputs], error: PipelineError) -> None:
        super().__init__(str(error))
        self.outputs = outputs
        self.error = error


class Delivery(Protocol):
    """Where a stage's results and failures go. Each call returns when the broker has acknowledged."""

    async def deliver(self, records: Sequence[Record], outputs: Sequence[Outputs]) -> None:
        """Send what became of ``records``."""

    async def fail(self, record: Record, error: PipelineError) -> None:
        """Send a record to its retry or dead-letter topic."""

    async def pause(self, error: UnavailableError) -> None:
        """Wait while a dependency is unavailable."""


async def handle(stage: Stage[In], records: Sequence[Record], delivery: Delivery, executor: Executor) -> None:
    """Process and deliver a batch; on return every record is delivered or routed."""
    good, items = [], []
    for record in records:
        try:
            items.append(stage.decode(record))
        except PipelineError as error:
            await delivery.fail(record, error)
        else:
            good.append(record)
    await _process(stage, good, items, delivery, executor)


async def _process(
    stage: Stage[In], records: Sequence[Record], items: Sequence[In], delivery: Delivery, executor: Executor
) -> None:
    loop = asyncio.get_running_loop()
    while records:
        try:
            with bound_contextvars(stage=stage.name, correlation_ids=_correlation_ids(records)):
                context = contextvars.copy_context()  # a thread does not have it by itself
            outputs = await loop.run_in_executor(executor, context.run, stage.process, items)
        except PartialError as partial:
            done = len(partial.outputs)
            await delivery.deliver(records[:done], partial.outputs)
            if isinstance(partial.error, UnavailableError):
                await delivery.pause(partial.error)
            else:
                await delivery.fail(records[done], partial.error)
                done += 1
            records, items = records[done:], items[done:]
        except FatalError:  # this process's fault: the agent ends it
            raise
        except UnavailableError as error:  # the world's fault: wait here, acknowledge nothing, let lag grow
            await delivery.pause(error)
        except Exception as error:  # a record's fault: halve until it stands alone
            if len(records) == 1:
                await delivery.fail(records[0], _classified(error))
                return
            middle = len(records) // 2
            await _process(stage, records[:middle], items[:middle], delivery, executor)
            records, items = records[middle:], items[middle:]
        else:
            await delivery.deliver(records, outputs)
            return


def _correlation_ids(records: Sequence[Record]) -> list[str]:
    """Of whom every log line about these records speaks; the first ones, and how many more there are."""
    ids = list(dict.fromkeys(record.correlation_id for record in records))
    return [*ids[:_MAX_LOGGED], f"and {len(ids) - _MAX_LOGGED} more"] if len(ids) > _MAX_LOGGED else ids


def _classified(error: Exception) -> PipelineError:
    """Anything unknown may pass later: a bug neither loses a record nor loops, for attempts are bounded."""
    if isinstance(error, TransientError | PermanentError):
        return error
    unknown = TransientError(f"{type(error).__name__}: {error}")
    unknown.__cause__ = error
    return unknown
