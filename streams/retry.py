"""Moves a stage's due records from its retry topics back to its source: one consumer group per stage."""

import threading
import time
from collections.abc import Sequence

import structlog
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from opentelemetry import trace

from schemas import headers as names
from schemas.records import StageName
from schemas.topics import RETRY_DELAYS, SOURCES, named, retry_group_of, retry_topic
from streams.kafka import producer_configuration, record_of, send_now
from streams.offsets import client_configuration
from streams.tracing import in_span

log = structlog.get_logger()


class RetryMover:
    """A thread that waits for records to be due; a partition whose head is not due is paused, so nothing else waits."""

    def __init__(self, stage: StageName, bootstrap_servers: str, *, generation: str = "") -> None:
        self._group = retry_group_of(stage, generation)
        self._source = named(SOURCES[stage], generation)
        self._topics = [named(retry_topic(stage, delay), generation) for delay in RETRY_DELAYS]
        self._stopping = threading.Event()
        self._paused: dict[tuple[str, int], tuple[float, int]] = {}
        self._consumer = Consumer(
            client_configuration(bootstrap_servers)
            | {
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": 4096,
            }
        )
        self._producer = Producer(producer_configuration(bootstrap_servers))
        self._thread = threading.Thread(target=self._run, name=f"retry-{stage}", daemon=True)

    def start(self) -> None:
        """Start moving."""
        self._consumer.subscribe(self._topics, on_assign=self._forget, on_revoke=self._forget)
        self._thread.start()

    def stop(self) -> None:
        """Stop; what was not moved is moved after the next start."""
        self._stopping.set()
        self._thread.join(timeout=10)
        self._consumer.close()

    def _forget(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._paused.pop((tp.topic, tp.partition), None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._resume_due()
                message = self._consumer.poll(0.2)
                if message is not None and message.error() is None:
                    self._take_or_keep(message)
            except Exception as error:  # whatever it was, the thread goes on: nothing is committed that was not moved
                log.warning("retry-mover", group=self._group, error=repr(error))
                self._stopping.wait(1.0)

    def _take_or_keep(self, message: Message) -> None:
        """Move a record; if that fails it is read again, for a later commit must not pass over it."""
        try:
            self._take(message)
        except Exception:
            record = record_of(message)
            self._consumer.seek(TopicPartition(record.topic, record.partition, record.offset))
            raise

    def _take(self, message: Message) -> None:
        record = record_of(message)
        tp = TopicPartition(record.topic, record.partition, record.offset)
        wait = record.due_at / 1000 - time.time()
        if wait > 0:
            self._paused[record.topic, record.partition] = (time.monotonic() + wait, record.offset)
            self._consumer.pause([tp])
            return
        moved = in_span(record, "retry", self._group)
        headers = [(key, value) for key, value in moved.headers if key != names.DUE_AT]
        with trace.use_span(moved.span, end_on_exit=True):
            send_now(self._producer, self._source, record.key, record.value, headers)
        self._consumer.commit(offsets=[TopicPartition(tp.topic, tp.partition, tp.offset + 1)], asynchronous=False)

    def _resume_due(self) -> None:
        now = time.monotonic()
        for (topic, partition), (due, offset) in list(self._paused.items()):
            if due <= now:
                self._consumer.seek(TopicPartition(topic, partition, offset))
                self._consumer.resume([TopicPartition(topic, partition)])
                del self._paused[topic, partition]
