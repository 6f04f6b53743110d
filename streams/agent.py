"""One stage as a Faust app: the only place that knows Faust.

Why it is written this way, and what loses records otherwise, is in docs/adr/0002-faust-and-manual-acks.md: raw
bytes topics, ``noack_take``, one agent without concurrency, every event acknowledged in offset order after the broker
has confirmed what it became, and no exception ever leaves the loop. What cannot be delivered ends the process.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.auth import SASLCredentials, SSLCredentials

from schemas.headers import Headers
from schemas.settings import Kafka, Settings
from schemas.topics import SOURCES, group_of, named
from streams import metrics
from streams.delivery import TopicDelivery
from streams.health import StageHealth
from streams.record import Record
from streams.security import tls_context
from streams.stage import Stage, handle
from streams.tracing import batch_spans

log = structlog.get_logger()

EXIT_UNDELIVERABLE = 70


def faust_app(
    stage: Stage[Any], settings: Settings, bootstrap_servers: str, health: StageHealth, executor: Executor
) -> faust.App:
    """The app that runs ``stage`` in ``executor``'s one thread; its id is the consumer group."""
    folder, generation = Path(settings.data_dir) / "faust", settings.generation
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        id=group_of(stage.name, generation),
        broker=[f"kafka://{server}" for server in bootstrap_servers.split(",")],
        broker_credentials=_credentials(settings.kafka),
        datadir=folder / group_of(stage.name, generation),
        key_serializer="raw",
        value_serializer="raw",
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        agent_supervisor="mode.CrashingSupervisor",
        consumer_group_instance_id=settings.kafka.instance or None,
        consumer_auto_offset_reset="none",  # an offset out of range stops the worker instead of skipping records
        broker_session_timeout=settings.kafka.session_timeout,
        broker_heartbeat_interval=3.0,
        broker_request_timeout=max(90.0, settings.kafka.session_timeout * 2),
        broker_rebalance_timeout=300.0,
        broker_max_poll_interval=86_400.0,  # Faust never rejoins after exceeding it; the watchdog replaces it
        broker_max_poll_records=256,
        broker_commit_interval=1.0,
        stream_buffer_maxsize=1024,
        stream_wait_empty=False,  # safe with noack_take only: what is in flight is delivered again
        producer_acks=-1,
        producer_linger=0.005,
        producer_request_timeout=settings.kafka.request_timeout,
        producer_max_request_size=4 * 1024 * 1024,
        consumer_max_fetch_size=4 * 1024 * 1024,
        web_enabled=False,
    )
    topics: dict[str, Any] = {}

    async def send(topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        if topic not in topics:
            topics[topic] = app.topic(topic, key_serializer="raw", value_serializer="raw")
        delivered = await topics[topic].send(key=key, value=value, headers=list(headers))
        await delivered

    delivery = TopicDelivery(stage.name, send, settings, health)

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def _assigned(sender: Any, assigned: Any, **kwargs: Any) -> None:
        health.partitions = frozenset(tp.partition for tp in assigned)
        health.assigned.set()

    source = app.topic(named(SOURCES[stage.name], generation), key_serializer="raw", value_serializer="raw")

    @app.agent(source, concurrency=1)  # type: ignore[untyped-decorator]
    async def run(stream: Any) -> None:
        async for events in _batches(stream, stage):
            try:
                await _handle_batch(stage, events, delivery, executor, health)
                for event in events:
                    await stream.ack(event)
            except asyncio.CancelledError:
                raise  # shutdown or rebalance: nothing is acknowledged, all of it comes again
            except BaseException as error:
                _die(stage, error)
            await delivery.stay_stopped()

    return app


def _credentials(settings: Kafka) -> Any:
    """What the app shows the brokers; None where nothing is shown and nothing encrypted."""
    context = tls_context(settings)
    if settings.uses_sasl and settings.sasl_password:
        return SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context=context) if context else None


async def _batches(stream: Any, stage: Stage[Any]) -> AsyncIterator[list[Any]]:
    async for events in stream.noack_take(stage.batch.max_records, within=max(stage.batch.max_wait, 0.001)):
        yield events


async def _handle_batch(
    stage: Stage[Any],
    events: list[Any],
    delivery: TopicDelivery,
    executor: Executor,
    health: StageHealth,
) -> None:
    started = time.perf_counter()
    records = [record for record in map(_record, events) if record.is_for(stage.name)]
    with health.working(), batch_spans(stage.name, records) as spanned:
        await handle(stage, spanned, delivery, executor)
    health.handled += len(events)
    metrics.BATCH_RECORDS.labels(stage.name).observe(len(events))
    metrics.BATCH_SECONDS.labels(stage.name).observe(time.perf_counter() - started)


def _record(event: Any) -> Record:
    message = event.message
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(message.headers or ()),
    )


def _die(stage: Stage[Any], error: BaseException) -> None:
    """End without the graceful path, which would acknowledge and commit what was not delivered."""
    log.critical("undeliverable", stage=stage.name, error=repr(error), exc_info=error)
    os._exit(EXIT_UNDELIVERABLE)
