"""Where a consumer group starts: every partition gets a committed offset before its first reader.

Faust reads from ``consumer_auto_offset_reset='none'``: an offset that the log no longer has stops the worker loudly,
where ``earliest`` would skip records silently (docs/adr/0002).
"""

import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from streams.security import shown


def client_configuration(bootstrap_servers: str) -> dict[str, Any]:
    """What every client outside Faust has in common; a broker that is away is our callers' to report."""
    return {"bootstrap.servers": bootstrap_servers, "log_level": 2, **shown()}


def partitions_of(admin: AdminClient, topic: str) -> list[TopicPartition]:
    """Every partition of a topic.

    Raises:
        LookupError: The topic does not exist.
    """
    found = admin.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        raise LookupError(f"topic {topic} does not exist; `aegis topics create` creates it")
    return [TopicPartition(topic, partition) for partition in sorted(found.partitions)]


@retry(retry=retry_if_exception_type(KafkaException), wait=wait_fixed(0.3), stop=stop_after_delay(15), reraise=True)
def committed(
    bootstrap_servers: str, group: str, partitions: list[TopicPartition]
) -> dict[tuple[str, int], int | None]:
    """Committed offset by topic and partition; None where the group never committed.

    Asked of a consumer and asked again: on a fresh broker the coordinator is made on first demand, for which the
    admin client would wait until its time-out.
    """
    consumer = Consumer(client_configuration(bootstrap_servers) | {"group.id": group, "enable.auto.commit": False})
    try:
        found = consumer.committed(partitions, timeout=5)
        _check(found)
        return {(tp.topic, tp.partition): tp.offset if tp.offset >= 0 else None for tp in found}
    finally:
        consumer.close()


def initialise_offsets(bootstrap_servers: str, group: str, topic: str, *, timeout: float = 30.0) -> None:
    """Commit the start of the log for partitions on which ``group`` never committed.

    Raises:
        LookupError: The topic does not exist.
        TimeoutError: The offsets could not be committed in time.
    """
    admin = AdminClient(client_configuration(bootstrap_servers))
    deadline = time.monotonic() + timeout
    while True:
        try:
            missing = _missing(admin, bootstrap_servers, group, topic)
            if not missing:
                return
            request = ConsumerGroupTopicPartitions(group, _starts(bootstrap_servers, topic, missing))
            _check(admin.alter_consumer_group_offsets([request])[group].result(timeout=10).topic_partitions)
        except KafkaException as error:  # the coordinator is loading, or another worker has joined and set them
            if time.monotonic() >= deadline:
                raise TimeoutError(f"offsets of group {group} on {topic} could not be set: {error}") from error
            time.sleep(0.5)


@retry(
    retry=retry_if_exception_type((KafkaException, LookupError)),  # a broker started a moment ago leads nothing yet
    wait=wait_fixed(0.5),
    stop=stop_after_delay(75),  # a member that was killed counts for the session timeout, 30 s
    reraise=True,
)
def rewind(bootstrap_servers: str, group: str, topic: str) -> None:
    """Let a group without members read a topic from its first record again.

    Raises:
        ValueError: The topic's first records have been deleted.
        LookupError: The topic does not exist.
        KafkaException: The group has members, or the broker does not answer.
    """
    admin = AdminClient(client_configuration(bootstrap_servers))
    starts = _starts(bootstrap_servers, topic, [tp.partition for tp in partitions_of(admin, topic)])
    if cut := [tp.partition for tp in starts if tp.offset > 0]:
        raise ValueError(f"{topic} does not go back to the start any more: records of partitions {cut} were deleted")
    request = ConsumerGroupTopicPartitions(group, starts)
    changed = admin.alter_consumer_group_offsets([request])[group].result(timeout=30)
    _check(changed.topic_partitions)


def _check(partitions: Iterable[TopicPartition]) -> None:
    """The call as a whole succeeds even where the group has members, or a partition's coordinator is loading.

    Raises:
        KafkaException: What was answered for the first partition with an error.
    """
    for partition in partitions:
        if partition.error is not None:
            raise KafkaException(partition.error)


def _starts(bootstrap_servers: str, topic: str, partitions: list[int]) -> list[TopicPartition]:
    """The partitions with the first offset that their logs still have."""
    consumer = Consumer(client_configuration(bootstrap_servers) | {"group.id": "aegis-reader"})
    try:
        tps = [TopicPartition(topic, partition) for partition in partitions]
        lows = [consumer.get_watermark_offsets(tp, timeout=15, cached=False)[0] for tp in tps]
        return [TopicPartition(topic, partition, low) for partition, low in zip(partitions, lows, strict=True)]
    finally:
        consumer.close()


def _missing(admin: AdminClient, bootstrap_servers: str, group: str, topic: str) -> list[int]:
    offsets = committed(bootstrap_servers, group, partitions_of(admin, topic))
    return [partition for (_, partition), offset in offsets.items() if offset is None]
