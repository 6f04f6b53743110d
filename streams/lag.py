"""How far behind every consumer group is: in records, in seconds, and whether it is getting better."""

import time
from collections.abc import Sequence
from typing import Literal

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel

from schemas.records import STAGES, StageName
from schemas.topics import RETRY_DELAYS, SOURCES, group_of, retry_group_of, retry_topic
from streams.kafka import reader, record_of
from streams.offsets import client_configuration, partitions_of

# OK: no lag, or it shrinks. WARN: it grows. STALL: it does not move although there are members. STOP: nobody reads.
Verdict = Literal["OK", "WARN", "STALL", "STOP", "UNKNOWN"]


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


class LagMeter:
    """Measures from outside, with committed offsets and the log's own timestamps: a stalled worker cannot lie."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._admin = AdminClient(client_configuration(bootstrap_servers))
        self._before: dict[str, tuple[float, int, int]] = {}

    def measure(self, stages: Sequence[StageName] = STAGES, *, retries: bool = False) -> list[GroupLag]:
        """Lag of each stage's group now; rates come from the second call on.

        Raises:
            LookupError: A topic does not exist.
            KafkaException: The broker does not answer.
        """
        consumer = reader(self._bootstrap_servers)
        try:
            groups = [self._group(consumer, stage, group_of(stage), [SOURCES[stage].name]) for stage in stages]
            if retries:
                tiers = {stage: [retry_topic(stage, delay).name for delay in RETRY_DELAYS] for stage in stages}
                groups += [self._group(consumer, stage, retry_group_of(stage), tiers[stage]) for stage in stages]
            return groups
        finally:
            consumer.close()

    def seconds_behind(self, stage: StageName) -> float | None:
        """Age of the oldest record that the stage has not read; 0 without lag, None when it never read."""
        return self.measure([stage])[0].seconds

    def _group(self, consumer: Consumer, stage: StageName, group: str, topics: Sequence[str]) -> GroupLag:
        tps = [tp for topic in topics for tp in partitions_of(self._admin, topic)]
        offsets = self._committed(group, tps)  # before the end offsets, so that lag is never negative
        partitions = [_partition(consumer, group, tp, offsets.get((tp.topic, tp.partition))) for tp in tps]
        known = [lag.records for lag in partitions if lag.records is not None]
        records = sum(known) if known else None
        rate = self._rate(group, sum(lag.committed or 0 for lag in partitions), records or 0)
        members = self._members(group)
        moved, grew = rate or (None, None)
        shrinks = grew is not None and grew < 0 and bool(records)
        return GroupLag(
            group=group,
            stage=stage,
            topic=", ".join(topics),
            records=records,
            seconds=max((lag.seconds for lag in partitions if lag.seconds is not None), default=None),
            records_per_second=moved,
            eta_seconds=(records or 0) / -grew if shrinks and grew else (0.0 if records == 0 else None),
            members=members,
            verdict=_verdict(records, members, moved, grew),
            partitions=partitions,
        )

    def _committed(self, group: str, tps: list[TopicPartition]) -> dict[tuple[str, int], int | None]:
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(tp.topic, tp.partition) for tp in tps])
        found = self._admin.list_consumer_group_offsets([request])[group].result(timeout=15)
        return {(tp.topic, tp.partition): tp.offset if tp.offset >= 0 else None for tp in found.topic_partitions}

    def _members(self, group: str) -> int:
        return len(self._admin.describe_consumer_groups([group])[group].result(timeout=15).members)

    def _rate(self, group: str, committed: int, records: int) -> tuple[float, float] | None:
        """Records read per second, and lag gained per second, since the last call."""
        now = time.monotonic()
        before = self._before.get(group)
        self._before[group] = (now, committed, records)
        if before is None or now - before[0] < 0.2:
            return None
        elapsed = now - before[0]
        return (committed - before[1]) / elapsed, (records - before[2]) / elapsed


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


def _verdict(records: int | None, members: int, moved: float | None, grew: float | None) -> Verdict:
    if records is None:
        return "UNKNOWN"
    if records == 0:
        return "OK"
    if members == 0:
        return "STOP"
    if moved is not None and moved <= 0:
        return "STALL"
    return "WARN" if grew is not None and grew > 0 else "OK"
