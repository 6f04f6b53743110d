"""The bounded pools of this process, registered where they are made as metrics are; of one name the newest counts."""

from typing import Protocol
from weakref import WeakValueDictionary

from anyio import CapacityLimiter
from pydantic import BaseModel

_threads: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()
_slots: WeakValueDictionary[str, "Bounded"] = WeakValueDictionary()


class Bounded(Protocol):
    """Places, some of them taken."""

    limit: int
    taken: int


class PoolUse(BaseModel):
    """How much of a pool is in use."""

    limit: int
    in_use: int
    waiting: int = 0


def threads(name: str, size: int) -> CapacityLimiter:
    """A pool of that many threads, seen in the statistics."""
    _threads[name] = limiter = CapacityLimiter(size)
    return limiter


def register(name: str, slots: Bounded) -> None:
    """Let the statistics see these slots."""
    _slots[name] = slots


def threads_in_use() -> dict[str, PoolUse]:
    """Each pool of threads, with how many calls wait for one."""
    return {
        name: PoolUse(
            limit=int(limiter.total_tokens),
            in_use=limiter.borrowed_tokens,
            waiting=limiter.statistics().tasks_waiting,
        )
        for name, limiter in _threads.items()
    }


def slots_in_use() -> dict[str, PoolUse]:
    """Each kind of request that only so many may be of at once; nobody waits for a slot, the rest are refused."""
    return {name: PoolUse(limit=slots.limit, in_use=slots.taken) for name, slots in _slots.items()}
