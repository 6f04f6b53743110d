"""The micro-batcher on devices whose speed, memory and failures are known."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.batch_queue import window
from processors.errors import DeadlineError, OverloadedError, UnavailableError
from processors.micro_batcher import BatchReport, MicroBatcher, Priority
from tests.waiting import until

INTERACTIVE, BULK = Priority


class Device:
    """Doubles numbers; holds still while its gate is closed, and then takes ``token_seconds`` per padded token.

    An item is its own length.
    """

    def __init__(
        self, *, token_seconds: float = 0.0, fail: Callable[[Sequence[int]], None] = lambda batch: None
    ) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._token_seconds = token_seconds
        self._fail = fail

    def run(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        self._fail(batch)
        assert self.gate.wait(20)
        time.sleep(self._token_seconds * max(batch) * len(batch))
        return [2 * item for item in batch]

    def computed(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


def batcher(device: Device, *, max_batch_tokens: int = 100, max_queued_tokens: int = 10_000, lanes: int = 1,
            observe: Callable[[BatchReport], None] = lambda report: None) -> MicroBatcher[int, int]:  # fmt: skip
    return MicroBatcher(
        device.run,
        name="test",
        max_batch_tokens=max_batch_tokens,
        max_queued_tokens=max_queued_tokens,
        lanes=lanes,
        observe=observe,
    )


def submit(
    to: MicroBatcher[int, int],
    items: Sequence[int],
    priority: Priority = BULK,
    caller: str = "",
    deadline: float | None = None,
) -> "Future[list[int]]":
    return to.submit(items, items, priority=priority, caller=caller, deadline=deadline)


def busy(device: Device, to: MicroBatcher[int, int], item: int = 1) -> "Future[list[int]]":
    """Close the gate behind one item, so that what follows is queued."""
    device.gate.clear()
    already = len(device.batches)
    first = submit(to, [item], BULK, "first")
    until(lambda: len(device.batches) > already)
    return first


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, 300), max_size=30), st.sampled_from(Priority), st.sampled_from("abc")),
             max_size=12),
    st.integers(1, 400),
    st.integers(1, 3),
)  # fmt: skip
def test_everyone_gets_their_own_results_in_order(
    mix: list[tuple[list[int], Priority, str]], budget: int, lanes: int
) -> None:
    device, reports = Device(), list[BatchReport]()
    to = batcher(device, max_batch_tokens=budget, max_queued_tokens=10**6, lanes=lanes, observe=reports.append)
    futures = [submit(to, items, priority, caller) for items, priority, caller in mix]
    for future, (items, _, _) in zip(futures, mix, strict=True):
        assert future.result(20) == [2 * item for item in items]
    for batch in device.batches:
        assert len(batch) == 1 or max(batch) * len(batch) <= budget
    assert sorted(device.computed()) == sorted(item for items, _, _ in mix for item in items)
    to.close()
    assert sum(report.tokens for report in reports) == sum(device.computed())
    assert all(len(report.queue_seconds) == report.items for report in reports)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(0, 59), st.integers(1, 2000))
def test_a_window_holds_its_place_and_little_padding(lengths: list[int], place: int, budget: int) -> None:
    lengths.sort()
    place %= len(lengths)
    low, high = window(lengths, place, budget)
    assert low <= place < high
    assert high - low == 1 or lengths[high - 1] * (high - low) <= budget
    assert all(lengths[high - 1] - length <= 8 or at == place for at, length in enumerate(lengths[low:high], low))


def test_equal_items_fill_batches_to_the_budget() -> None:
    device = Device()
    to = batcher(device, max_batch_tokens=100)
    first = busy(device, to)
    queued = [submit(to, [10] * 7, caller=str(number)) for number in range(10)]
    device.gate.set()
    wait_for_all([first, *queued])
    assert device.batches == [[1], *[[10] * 10] * 7]


def test_an_item_above_the_budget_goes_alone() -> None:
    device = Device()
    assert submit(batcher(device, max_batch_tokens=100), [300, 300, 20, 20]).result(5) == [600, 600, 40, 40]
    assert sorted(device.batches) == [[20, 20], [300], [300]]


def test_interactive_goes_before_bulk_and_shares_no_pass_with_it() -> None:
    device = Device()
    to = batcher(device)
    first = busy(device, to)
    bulk = submit(to, [20] * 50)
    query = submit(to, [21], INTERACTIVE)
    device.gate.set()
    wait_for_all([first, bulk, query])
    assert device.batches[1] == [21]


def test_bulk_passes_are_short_while_queries_come() -> None:
    device = Device()
    to = batcher(device, max_batch_tokens=100)
    submit(to, [5], INTERACTIVE).result(5)
    submit(to, [5] * 40).result(5)
    assert device.batches == [[5], *[[5] * 5] * 8]


def test_callers_take_turns_and_each_ones_oldest_is_first() -> None:
    device = Device()
    to = batcher(device, max_batch_tokens=50)
    first = busy(device, to)
    futures = [submit(to, [50], caller="greedy") for _ in range(20)]
    futures += [submit(to, [40 - number], caller="modest") for number in range(0, 30, 10)]
    device.gate.set()
    wait_for_all([first, *futures])
    modest = [at for at, batch in enumerate(device.batches) if batch[0] in (40, 30, 20)]
    assert modest == [2, 4, 6]
    assert [device.batches[at] for at in modest] == [[40], [30], [20]]


def test_cancelled_work_is_not_computed() -> None:
    device = Device()
    to = batcher(device, max_queued_tokens=60)
    first = busy(device, to)
    gone, stays = submit(to, [25, 26]), submit(to, [7])
    assert gone.cancel()
    assert to.queued_tokens == 7
    room = submit(to, [50])
    device.gate.set()
    assert stays.result(5) == [14]
    wait_for_all([first, gone, room], timeout=5)
    assert gone.cancelled()
    assert sorted(device.computed()) == [1, 7, 50]


def test_a_half_done_submission_stops_when_it_is_cancelled() -> None:
    device = Device()
    to = batcher(device, max_batch_tokens=10)
    device.gate.clear()
    half = submit(to, [10] * 50)
    until(lambda: len(device.batches) == 1)
    assert half.cancel()
    device.gate.set()
    assert submit(to, [3]).result(5) == [6]
    assert device.batches == [[10], [3]]


def test_what_is_too_late_is_not_computed() -> None:
    device = Device()
    to = batcher(device)
    first = busy(device, to)
    late = submit(to, [30, 31], deadline=time.monotonic() + 0.02)
    early = submit(to, [29], deadline=time.monotonic() + 60)
    time.sleep(0.03)
    device.gate.set()
    with pytest.raises(DeadlineError):
        late.result(5)
    assert (first.result(5), early.result(5)) == ([2], [58])
    assert sorted(device.computed()) == [1, 29]
    assert to.queued_tokens == 0


def test_a_failure_ends_only_those_that_were_in_the_batch() -> None:
    def fail(batch: Sequence[int]) -> None:
        if 13 in batch:
            raise UnavailableError("unlucky")

    device = Device(fail=fail)
    to = batcher(device)
    first = busy(device, to)
    neighbour, unlucky, far = submit(to, [14]), submit(to, [13, 90, 91, 92]), submit(to, [60])
    device.gate.set()
    assert (first.result(5), far.result(5)) == ([2], [120])
    for future in (neighbour, unlucky):
        with pytest.raises(UnavailableError, match="unlucky"):
            future.result(5)


def test_a_wrong_number_of_results_is_a_failure() -> None:
    to: MicroBatcher[int, int] = MicroBatcher(lambda batch: [], name="test", max_batch_tokens=9, max_queued_tokens=9)
    with pytest.raises(ValueError, match="shorter"):
        submit(to, [1]).result(5)


def test_too_little_memory_halves_batches_and_the_budget_recovers() -> None:
    limit = [30]

    def fail(batch: Sequence[int]) -> None:
        if sum(batch) > limit[0]:
            raise MemoryError

    device = Device(fail=fail)
    to = batcher(device)
    items = [10] * 40
    assert submit(to, items).result(5) == [20] * 40
    refused = [batch for batch in device.batches if sum(batch) > 30]
    assert [len(batch) for batch in refused[:2]] == [10, 5]
    assert len(refused) < 10, "it learns"
    with pytest.raises(UnavailableError, match="not enough memory for one item of 31 tokens"):
        submit(to, [31]).result(5)
    limit[0] = 1000
    device.batches.clear()
    submit(to, [10] * 1000).result(5)
    assert max(map(len, device.batches)) == 10


def test_overload_is_refused_with_a_wait_that_is_right() -> None:
    device = Device(token_seconds=0.0002)
    to = batcher(device, max_batch_tokens=100, max_queued_tokens=2000)
    submit(to, [10] * 100).result(10)
    running = submit(to, [10] * 200)
    with pytest.raises(OverloadedError) as refusal:
        submit(to, [10] * 120)
    asked_at, retry_after = time.monotonic(), refusal.value.retry_after or 0
    while True:
        try:
            admitted = submit(to, [10] * 120)
            break
        except OverloadedError:
            time.sleep(0.002)
    took = time.monotonic() - asked_at
    assert took / 2 < retry_after < took * 2 + 0.1
    assert admitted.result(10) == [20] * 120
    assert running.result(10) == [20] * 200
    rate = to.tokens_per_second or 0
    assert 1000 < rate <= 5000


def test_bulk_work_leaves_room_for_queries() -> None:
    device = Device()
    to = batcher(device, max_queued_tokens=50)
    first = busy(device, to)
    bulk = submit(to, [50])
    with pytest.raises(OverloadedError):
        submit(to, [1])
    query = submit(to, [50], INTERACTIVE)
    device.gate.set()
    wait_for_all([first, bulk, query], timeout=5)
    assert submit(to, [200]).result(5) == [400], "more than the bound is taken when nothing waits"


def test_500_at_once_on_a_small_queue_all_end() -> None:
    device = Device(token_seconds=0.000001)
    to = batcher(device, max_queued_tokens=500, lanes=2)
    random_lengths = random.Random(7)
    wanted = [[random_lengths.randint(1, 60) for _ in range(random_lengths.randint(1, 6))] for _ in range(500)]
    barrier = threading.Barrier(50)

    def call(number: int) -> str:
        if number < 50:
            barrier.wait()
        deadline = time.monotonic() + (0 if number % 7 == 0 else 20)
        try:
            future = submit(to, wanted[number], Priority(number % 2), str(number % 5), deadline)
        except OverloadedError as error:
            assert error.retry_after
            return "refused"
        if number % 5 == 0 and future.cancel():
            return "cancelled"
        try:
            assert future.result(20) == [2 * item for item in wanted[number]]
        except DeadlineError:
            return "late"
        return "done"

    with ThreadPoolExecutor(50) as pool:
        ends = list(pool.map(call, range(500)))
    assert len(ends) == 500
    assert {"done", "refused"} <= set(ends)
    assert to.queued_tokens == 0
    assert submit(to, [5]).result(5) == [10]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_leaves_nobody_waiting() -> None:
    crashed: list[threading.Thread] = []

    def observe(report: BatchReport) -> None:
        if not crashed:
            crashed.append(threading.current_thread())
            raise RuntimeError("a bug")

    device = Device()
    to = batcher(device, observe=observe)
    first = busy(device, to)
    waiting = [submit(to, [50]) for _ in range(5)]
    device.gate.set()
    assert first.result(5) == [2]
    for future in waiting:
        with pytest.raises(UnavailableError, match="a bug"):
            future.result(5)
    assert submit(to, [4]).result(5) == [8], "the next one finds a new thread"
    crashed[0].join(5)


def test_closing_lets_nobody_wait() -> None:
    device = Device()
    to = batcher(device)
    running = busy(device, to)
    waiting = submit(to, [5])
    closing = threading.Thread(target=to.close)
    closing.start()
    for future in (running, waiting):
        with pytest.raises(UnavailableError, match="closed"):
            future.result(5)
    device.gate.set()
    closing.join(5)
    assert not closing.is_alive()
    with pytest.raises(UnavailableError, match="closed"):
        submit(to, [1])


def test_nothing_in_nothing_out() -> None:
    device = Device()
    assert submit(batcher(device), []).result(0) == []
    assert device.batches == []
