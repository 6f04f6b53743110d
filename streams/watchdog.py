"""A thread that ends the process when a stage stalls: Faust can stop silently and look alive (docs/adr/0002)."""

import os
import threading
import time

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.settings import Watchdog
from schemas.topics import SOURCES, group_of, named
from streams.health import StageHealth
from streams.offsets import client_configuration, partitions_of

log = structlog.get_logger()

EXIT_STALLED = 71
_INTERVAL = 5.0


def start_watchdog(
    health: StageHealth, bootstrap_servers: str, limits: Watchdog, *, generation: str = ""
) -> threading.Thread:
    """Exit with status 71 after ``limits.stall`` seconds with lag that nobody reads and an agent without progress.

    While a batch is under way its time counts, up to ``limits.batch``: on a busy machine the stage that has to stand
    back may need minutes for one, and starting it again would only begin that batch anew.
    """
    name, arguments = f"watchdog-{health.stage}", (health, bootstrap_servers, limits, generation)
    thread = threading.Thread(target=_watch, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def _watch(health: StageHealth, bootstrap_servers: str, limits: Watchdog, generation: str) -> None:
    group, topic = group_of(health.stage, generation), named(SOURCES[health.stage], generation)
    consumer = Consumer(client_configuration(bootstrap_servers) | {"group.id": group, "enable.auto.commit": False})
    admin = AdminClient(client_configuration(bootstrap_servers))
    seen: dict[int, tuple[int, float]] = {}
    while True:
        time.sleep(min(_INTERVAL, limits.stall / 2))
        try:
            oldest = _oldest_stall(consumer, _watched(health, partitions_of(admin, topic)), seen)
        except (KafkaException, LookupError):
            continue  # a broker that does not answer is not this stage's stall
        allowed = limits.batch if health.is_working else limits.stall
        if min(oldest, time.monotonic() - health.progress_at) > allowed:
            log.critical("stalled", stage=health.stage, seconds=round(oldest))
            os._exit(EXIT_STALLED)


def _watched(health: StageHealth, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """The partitions this process has; all of them while it has none, for then it may have missed its turn."""
    mine = [tp for tp in partitions if tp.partition in health.partitions]
    return mine or partitions


def _oldest_stall(consumer: Consumer, partitions: list[TopicPartition], seen: dict[int, tuple[int, float]]) -> float:
    """Seconds for which the longest-stalled partition has had lag and an unchanged committed offset."""
    now = time.monotonic()
    for gone in seen.keys() - {tp.partition for tp in partitions}:
        del seen[gone]
    for tp in consumer.committed(partitions, timeout=15):
        offset = max(tp.offset, 0)
        has_lag = offset < consumer.get_watermark_offsets(tp, timeout=15, cached=False)[1]
        if not has_lag or seen.get(tp.partition, (-1, 0.0))[0] != offset:
            seen[tp.partition] = (offset, now)
    return max((now - since for _, since in seen.values()), default=0.0)
