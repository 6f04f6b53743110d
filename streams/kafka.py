"""How this side talks to Kafka outside Faust: client settings, records, bounded reads of whole topics."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.headers import Headers
from streams.offsets import client_configuration, committed, partitions_of
from streams.record import Record

log = structlog.get_logger()


def producer_configuration(bootstrap_servers: str) -> dict[str, Any]:
    """An idempotent producer: retries neither reorder nor repeat."""
    return client_configuration(bootstrap_servers) | {
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 5,
        "compression.type": "lz4",
        "message.max.bytes": 4 * 1024 * 1024,
        "delivery.timeout.ms": 120_000,
        # Records without a broker are kept here, and no more than that.
        "queue.buffering.max.kbytes": 64 * 1024,
        # Java's partitioner, as aiokafka's: a key is in the same partition whoever produces it.
        "partitioner": "murmur2_random",
    }


def wait_for_broker(bootstrap_servers: str) -> None:
    """Wait, and say so, until the broker answers: a worker may be started before it."""
    admin = AdminClient(client_configuration(bootstrap_servers))
    while True:
        try:
            admin.list_topics(timeout=5)
        except KafkaException as error:
            log.warning("broker-does-not-answer", bootstrap_servers=bootstrap_servers, error=error.args[0].str())
            time.sleep(1)
        else:
            return


def reader(bootstrap_servers: str) -> Consumer:
    """A consumer that belongs to no group and commits nothing."""
    return Consumer(
        client_configuration(bootstrap_servers)
        | {
            "group.id": "aegis-reader",  # required by the library, never joined: partitions are assigned by hand
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": False,
            "queued.max.messages.kbytes": 16 * 1024,
        }
    )


def send_now(
    producer: Producer, topic: str, key: bytes | None, value: bytes | None, headers: Headers, *, partition: int = -1
) -> None:
    """Produce one record and wait for the broker's acknowledgement; partition -1 is the key's own.

    Raises:
        KafkaException: The broker did not take it.
    """
    failures: list[KafkaError] = []
    producer.produce(
        topic,
        key=key,
        value=value,
        headers=list(headers),
        partition=partition,
        on_delivery=lambda error, _: failures.append(error) if error else None,
    )
    producer.flush()
    if failures:
        raise KafkaException(failures[0])


def record_of(message: Message) -> Record:
    """A consumed message as our record."""
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp=message.timestamp()[1],
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((key, _bytes(value) or b"") for key, value in message.headers() or ()),
    )


def read_all(
    bootstrap_servers: str, topics: Sequence[str], *, unread_by: str | None = None, timeout: float = 30.0
) -> Iterator[Record]:
    """Every record that the topics hold now, in order within a partition.

    Args:
        bootstrap_servers: The broker.
        topics: What to read.
        unread_by: Only what this group has not read.
        timeout: Seconds.

    Raises:
        LookupError: A topic does not exist.
        TimeoutError: The broker sent nothing for ``timeout`` seconds although records are left.
    """
    admin = AdminClient(client_configuration(bootstrap_servers))
    consumer = reader(bootstrap_servers)
    try:
        left = end_offsets(consumer, [tp for topic in topics for tp in partitions_of(admin, topic)])
        if unread_by is not None and left:
            left = _beyond(left, committed(bootstrap_servers, unread_by, [TopicPartition(*where) for where in left]))
        if not left:
            return
        consumer.assign([TopicPartition(topic, partition, low) for (topic, partition), (low, _) in left.items()])
        heard = time.monotonic()
        while left:
            for message in consumer.consume(500, timeout=0.5):
                if message.error() is None:
                    heard = time.monotonic()
                    yield record_of(message)
            left = _unread(consumer, left)
            if time.monotonic() - heard > timeout:
                raise TimeoutError(f"no record from {', '.join(sorted({topic for topic, _ in left}))} in {timeout:g} s")
    finally:
        consumer.close()


def end_offsets(consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[tuple[str, int], tuple[int, int]]:
    """Low and high watermark of the partitions that hold anything."""
    marks = {
        (tp.topic, tp.partition): consumer.get_watermark_offsets(tp, timeout=15, cached=False) for tp in partitions
    }
    return {where: mark for where, mark in marks.items() if mark[0] < mark[1]}


def _beyond(
    marks: dict[tuple[str, int], tuple[int, int]], offsets: Mapping[tuple[str, int], int | None]
) -> dict[tuple[str, int], tuple[int, int]]:
    starts = {where: max(low, offsets[where] or 0) for where, (low, _) in marks.items()}
    return {where: (starts[where], high) for where, (_, high) in marks.items() if starts[where] < high}


def _unread(consumer: Consumer, left: dict[tuple[str, int], tuple[int, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    positions = consumer.position([TopicPartition(topic, partition) for topic, partition in left])
    at = {(tp.topic, tp.partition): tp.offset for tp in positions}
    return {where: mark for where, mark in left.items() if at[where] < mark[1]}


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
