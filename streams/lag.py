"""How far behind every consumer group is: in records, in seconds, and whether it is getting better."""

import time
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel

from schemas.records import STAGES, StageName
from schemas.topics import RETRY_DELAYS, SOURCES, group_of, named, retry_group_of, retry_topic
from streams.kafka import reader, record_of
from streams.offsets import client_configuration, committed, partitions_of

# OK: no lag, or it shrinks. WARN: it grows. STALL: there are members, but nothing was read for _STALL_AFTER seconds or
# more of watching (a batch may take a while). REWIND: a committed offset went back, as after a reset or a restore.
# STOP: nobody reads. UNKNOWN: the group never committed. Burrow calls a group with STALL, STOP or REWIND an ERR.
Verdict = Literal["OK", "WARN", "STALL", "REWIND", "STOP", "UNKNOWN"]

_WINDOW = 60.0
_STALL_AFTER = 15.0
_QUIET_MEASUREMENTS = 3  # a record may be between two topics while one is measured


class PartitionLag(BaseModel):
    """Lag of one partition; ``records`` is None where the group never committed."""

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    records: int | None
    seconds: float | None


class GroupLag(BaseModel):
    """Lag of one consumer group on its source; ``eta_seconds`` is None while it does not shrink."""

    group: str
    stage: StageName
    topic: str
    records: int | None
    seconds: float | None
    records_per_second: float | None = None
    eta_seconds: float | None = None
    members: int
    verdict: Verdict
    partitions: list[PartitionLag]


def unread(groups: Sequence[GroupLag]) -> int:
    """Records that any of the groups has not read; where one never committed, all of them."""
    partitions = [partition for group in groups for partition in group.partitions]
    return sum(one.end if one.committed is None else one.records or 0 for one in partitions)


class LagMeter:
    """Measures from outside, with committed offsets and the log's own timestamps: a stalled worker cannot lie."""

    def __init__(self, bootstrap_servers: str, *, generation: str = "") -> None:
        self._bootstrap_servers = bootstrap_servers
        self._generation = generation
        self._admin = AdminClient(client_configuration(bootstrap_servers))
        self._seen: dict[str, deque[_Seen]] = {}

    def measure(self, stages: Sequence[StageName] = STAGES, *, retries: bool = False) -> list[GroupLag]:
        """Lag of each stage's group now; rates come from the second call on.

        Raises:
            LookupError: A topic does not exist.
            KafkaException: The broker does not answer.
        """
        consumer = reader(self._bootstrap_servers)
        try:
            groups = [self._of_stage(consumer, stage) for stage in stages]
            if retries:
                groups += [self._of_retries(consumer, stage) for stage in stages]
            return groups
        finally:
            consumer.close()

    def wait_until_read(self, *, timeout: float) -> int:
        """Wait until no stage and no retry tier has anything left to read; the records that are left."""
        deadline = time.monotonic() + timeout
        quiet = 0
        while True:
            left = unread(self.measure(retries=True))
            quiet = quiet + 1 if left == 0 else 0
            if quiet == _QUIET_MEASUREMENTS or time.monotonic() >= deadline:
                return left
            time.sleep(0.5)

    def seconds_behind(self, stage: StageName) -> float | None:
        """Age of the oldest record that the stage has not read; 0 without lag, None when it never read."""
        return self.measure([stage])[0].seconds

    def _of_stage(self, consumer: Consumer, stage: StageName) -> GroupLag:
        source = named(SOURCES[stage], self._generation)
        return self._group(consumer, stage, group_of(stage, self._generation), [source])

    def _of_retries(self, consumer: Consumer, stage: StageName) -> GroupLag:
        tiers = [named(retry_topic(stage, delay), self._generation) for delay in RETRY_DELAYS]
        return self._group(consumer, stage, retry_group_of(stage, self._generation), tiers)

    def _group(self, consumer: Consumer, stage: StageName, group: str, topics: Sequence[str]) -> GroupLag:
        tps = [tp for topic in topics for tp in partitions_of(self._admin, topic)]
        offsets = committed(self._bootstrap_servers, group, tps)  # before the end offsets: lag is never negative
        partitions = [_partition(consumer, group, tp, offsets[tp.topic, tp.partition]) for tp in tps]
        records = _total(partitions)
        trend = self._trend(group, tuple(lag.committed or 0 for lag in partitions), records or 0)
        members = self._members(group)
        return GroupLag(
            group=group,
            stage=stage,
            topic=", ".join(topics),
            records=records,
            seconds=max((lag.seconds for lag in partitions if lag.seconds is not None), default=None),
            records_per_second=trend.read if trend else None,
            eta_seconds=_eta(records, trend),
            members=members,
            verdict=_verdict(records, members, trend),
            partitions=partitions,
        )

    def _members(self, group: str) -> int:
        return len(self._admin.describe_consumer_groups([group])[group].result(timeout=15).members)

    def _trend(self, group: str, committed: tuple[int, ...], records: int) -> "_Trend | None":
        now = time.monotonic()
        seen = self._seen.setdefault(group, deque())
        seen.append(_Seen(now, committed, records))
        while now - seen[0].at > _WINDOW:
            seen.popleft()
        elapsed = now - seen[0].at
        if elapsed < 0.2:
            return None
        return _Trend(
            (sum(committed) - sum(seen[0].committed)) / elapsed,
            (records - seen[0].records) / elapsed,
            elapsed,
            rewound=any(
                after < before
                for one, next_ in pairwise(seen)
                for before, after in zip(one.committed, next_.committed, strict=False)
            ),
        )


class _Seen(NamedTuple):
    at: float
    committed: tuple[int, ...]
    records: int


class _Trend(NamedTuple):
    """Records read and lag gained, both per second, over the last ``seconds``, and whether an offset went back."""

    read: float
    gained: float
    seconds: float
    rewound: bool = False


def _partition(consumer: Consumer, group: str, tp: TopicPartition, committed: int | None) -> PartitionLag:
    low, end = consumer.get_watermark_offsets(tp, timeout=15, cached=False)
    unread = None if committed is None else max(0, end - max(committed, low))
    seconds = 0.0 if unread == 0 else None
    if committed is not None and unread:
        seconds = _age(consumer, TopicPartition(tp.topic, tp.partition, max(committed, low)))
    return PartitionLag(
        group=group,
        topic=tp.topic,
        partition=tp.partition,
        committed=committed,
        end=end,
        records=unread,
        seconds=seconds,
    )


def _age(consumer: Consumer, at: TopicPartition) -> float | None:
    """Seconds since the record at that offset was produced."""
    consumer.assign([at])
    try:
        message = consumer.poll(5.0)
        if message is None or message.error() is not None:
            return None
        return max(0.0, time.time() - record_of(message).timestamp / 1000)
    finally:
        consumer.unassign()


def _total(partitions: Sequence[PartitionLag]) -> int | None:
    """Unread records; None where the group never committed, or not on a partition that holds something."""
    unknown = [lag for lag in partitions if lag.committed is None]
    if len(unknown) == len(partitions) or any(lag.end > 0 for lag in unknown):
        return None
    return sum(lag.records or 0 for lag in partitions)


def _eta(records: int | None, trend: _Trend | None) -> float | None:
    if records == 0:
        return 0.0
    return records / -trend.gained if records and trend and trend.gained < 0 else None


def _verdict(records: int | None, members: int, trend: _Trend | None) -> Verdict:
    if records is None:
        return "UNKNOWN"
    if trend and trend.rewound:
        return "REWIND"
    if records == 0:
        return "OK"
    if members == 0:
        return "STOP"
    if trend and trend.read <= 0 and trend.seconds >= _STALL_AFTER:
        return "STALL"
    return "WARN" if trend and trend.gained > 0 else "OK"
