"""The generic loop: what becomes of a batch when some of it fails."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import get_contextvars

from processors.errors import FatalError, PermanentError, PipelineError, TransientError, UnavailableError
from schemas.records import Mark
from schemas.settings import Batch
from streams.record import Record
from streams.stage import Outputs, PartialError, Stage, handle


class Outcomes:
    """Records what was delivered, failed and paused."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.failed: dict[int, PipelineError] = {}
        self.pauses = 0

    async def deliver(self, records: Sequence[Record], outputs: Sequence[Outputs]) -> None:
        assert [record.offset for record in records] == [output[0].version for output in outputs]  # type: ignore[attr-defined]
        self.delivered += [record.offset for record in records]

    async def fail(self, record: Record, error: PipelineError) -> None:
        assert record.offset not in self.failed
        self.failed[record.offset] = error

    async def pause(self, error: UnavailableError) -> None:
        self.pauses += 1


def run(stage: Stage[int], count: int) -> Outcomes:
    outcomes = Outcomes()
    records = [Record("t", 0, offset, 0, b"k", str(offset).encode()) for offset in range(count)]
    with ThreadPoolExecutor(1) as executor:
        asyncio.run(handle(stage, records, outcomes, executor))
    return outcomes


def stage_of(process: object, decode: object = lambda record: int(record.value)) -> Stage[int]:
    return Stage("embed", Batch(max_records=8, max_wait=0), decode, process)  # type: ignore[arg-type]


def mark(number: int) -> Mark:
    return Mark(document_id="d", version=number, operation="delete")


@given(bad=st.sets(st.integers(0, 15)), count=st.integers(0, 16))
def test_only_bad_records_fail_and_the_rest_is_delivered_in_order(bad: set[int], count: int) -> None:
    def process(items: Sequence[int]) -> list[Outputs]:
        if any(item in bad for item in items):
            raise PermanentError("bad")
        return [[mark(item)] for item in items]

    outcomes = run(stage_of(process), count)
    assert outcomes.failed.keys() == {number for number in bad if number < count}
    assert outcomes.delivered == [number for number in range(count) if number not in bad]


def test_a_partial_error_costs_no_second_processing_of_what_is_done() -> None:
    processed: list[int] = []

    def process(items: Sequence[int]) -> list[Outputs]:
        outputs: list[Outputs] = []
        for item in items:
            processed.append(item)
            if item in (2, 5):
                raise PartialError(outputs, PermanentError("bad"))
            outputs.append([mark(item)])
        return outputs

    outcomes = run(stage_of(process), 8)
    assert processed == list(range(8))
    assert outcomes.failed.keys() == {2, 5}
    assert outcomes.delivered == [0, 1, 3, 4, 6, 7]


def test_an_unavailable_dependency_fails_nothing() -> None:
    calls = 0

    def process(items: Sequence[int]) -> list[Outputs]:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise UnavailableError("store down")
        return [[mark(item)] for item in items]

    outcomes = run(stage_of(process), 3)
    assert (outcomes.pauses, outcomes.failed, outcomes.delivered) == (3, {}, [0, 1, 2])


def test_an_unavailable_dependency_in_mid_batch_keeps_what_is_done() -> None:
    calls = 0

    def process(items: Sequence[int]) -> list[Outputs]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise PartialError([[mark(0)]], UnavailableError("blob store down"))
        return [[mark(item)] for item in items]

    outcomes = run(stage_of(process), 3)
    assert (outcomes.pauses, outcomes.failed, outcomes.delivered) == (1, {}, [0, 1, 2])


def test_an_unknown_exception_counts_as_transient_with_its_cause() -> None:
    def process(items: Sequence[int]) -> list[Outputs]:
        raise KeyError("surprise")

    error = run(stage_of(process), 1).failed[0]
    assert isinstance(error, TransientError)
    assert isinstance(error.__cause__, KeyError)
    assert "surprise" in str(error)


def test_what_cannot_be_decoded_fails_alone() -> None:
    def decode(record: Record) -> int:
        if record.offset == 1:
            raise PermanentError("undecodable")
        return record.offset

    outcomes = run(stage_of(lambda items: [[mark(item)] for item in items], decode), 3)
    assert outcomes.failed.keys() == {1}
    assert outcomes.delivered == [0, 2]


@pytest.mark.parametrize("outcome", [asyncio.CancelledError, SystemExit, FatalError])
def test_the_end_of_the_process_is_not_a_record_failure(outcome: type[BaseException]) -> None:
    def process(items: Sequence[int]) -> list[Outputs]:
        raise outcome

    with pytest.raises(outcome):
        run(stage_of(process), 1)


def test_every_log_line_about_a_batch_names_its_documents() -> None:
    seen = []

    def process(items: Sequence[int]) -> list[Outputs]:
        seen.append((list(items), get_contextvars()))
        if len(items) > 40:
            raise TransientError("halve it")
        return [[mark(item)] for item in items]

    run(stage_of(process), 80)
    (_, whole), (items, half), _ = seen
    assert whole["stage"] == "embed"
    assert (len(whole["correlation_ids"]), whole["correlation_ids"][-1]) == (33, "and 48 more")
    assert half["correlation_ids"][:2] == [f"t-0-{item}" for item in items[:2]]
    assert get_contextvars() == {}
