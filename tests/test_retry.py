"""Retry tiers on a real broker: due records come back, those that are not due hold nothing up."""

import os
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from schemas import headers as names
from schemas.dead_letters import Filter
from schemas.settings import Kafka
from schemas.topics import SOURCES, dead_letter_topic, retry_group_of, retry_topic
from streams.dead_letters import DeadLetters
from streams.kafka import producer_configuration, read_all, send_now
from streams.offsets import client_configuration, committed, partitions_of
from streams.record import Record
from streams.retry import RetryMover
from streams.topics import create_topics
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_due_records_come_back_byte_identical_while_later_ones_wait(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    producer = Producer(producer_configuration(bootstrap_servers))
    due_at = time.time() + 6
    for name, delay, due in (("soon", "5s", due_at), ("much-later", "5s", due_at + 600), ("other-tier", "10m", due_at)):
        headers = [(names.DUE_AT, str(int(due * 1000)).encode()), (names.ATTEMPT, b"1"), ("theirs", b"\xff")]
        send_now(producer, retry_topic("embed", delay).name, name.encode(), b"\x00value", headers)

    def moved() -> dict[bytes | None, Record]:
        records = read_all(bootstrap_servers, [SOURCES["embed"].name])
        return {record.key: record for record in records if record.value == b"\x00value"}

    mover = RetryMover("embed", bootstrap_servers)
    mover.start()
    try:
        time.sleep(1)
        assert moved() == {}
        until(lambda: len(moved()) == 2)
        assert time.time() >= due_at
    finally:
        mover.stop()
    assert moved().keys() == {b"soon", b"other-tier"}
    back = moved()[b"soon"]
    assert (back.attempt, dict(back.headers)["theirs"], back.due_at) == (1, b"\xff", 0)


def test_what_cannot_be_moved_is_kept(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    producer = Producer(producer_configuration(bootstrap_servers))
    topic, incompressible = retry_topic("chunk", "5s").name, os.urandom(2_500_000)  # the source takes 2 MiB
    for value in (incompressible, b"behind it"):
        send_now(producer, topic, b"same-partition", value, [(names.DUE_AT, b"0")])
    mover = RetryMover("chunk", bootstrap_servers)
    mover.start()
    time.sleep(4)
    mover.stop()
    partitions = partitions_of(AdminClient(client_configuration(bootstrap_servers)), topic)
    offsets = committed(bootstrap_servers, retry_group_of("chunk"), partitions)
    assert set(offsets.values()) == {None}
    assert not any(record.key == b"same-partition" for record in read_all(bootstrap_servers, [SOURCES["chunk"].name]))


def test_a_stopped_mover_continues_where_it_was(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    producer = Producer(producer_configuration(bootstrap_servers))
    source, waiting = SOURCES["index-graph"].name, retry_topic("index-graph", "1m").name

    def values() -> list[bytes | None]:
        return [record.value for record in read_all(bootstrap_servers, [source]) if record.key == b"stopped-mover"]

    for turn in range(2):
        send_now(producer, waiting, b"stopped-mover", str(turn).encode(), [(names.DUE_AT, b"0")])
        mover = RetryMover("index-graph", bootstrap_servers)
        mover.start()
        until(lambda expected=turn + 1: len(values()) >= expected)  # type: ignore[misc]
        mover.stop()
    assert values() == [b"0", b"1"]


def test_dropped_and_replayed_letters_are_gone_and_the_topic_is_cut(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    producer = Producer(producer_configuration(bootstrap_servers))
    topic = dead_letter_topic("extract").name
    for number in range(6):
        headers = [(names.ERROR_MESSAGE, f"reason {number}".encode()), (names.ERROR_CLASS, b"PermanentError")]
        send_now(producer, topic, b"one-partition", str(number).encode(), headers)
    letters = DeadLetters(bootstrap_servers)
    mine = Filter(stages=["extract"])
    assert [letter.error for letter in letters.find(mine)] == [f"reason {number}" for number in range(6)]

    assert len(list(letters.drop(Filter(stages=["extract"], error="reason [13]")))) == 2
    assert [letter.error[-1] for letter in letters.find(mine)] == ["0", "2", "4", "5"]
    assert len(list(letters.replay(mine, limit=2, rate=1000))) == 2
    assert [letter.error[-1] for letter in letters.find(mine)] == ["4", "5"]
    replayed = [record for record in read_all(bootstrap_servers, [SOURCES["extract"].name]) if record.is_for("extract")]
    assert [record.value for record in replayed if record.key == b"one-partition"] == [b"0", b"2"]
    assert not any(record.is_for("embed") for record in replayed if record.key == b"one-partition")
    assert [record.value for record in read_all(bootstrap_servers, [topic])] == [b"4", b"5"]
    assert letters.show("extract/0/0") is None
    with pytest.raises(ValueError, match="no dead letter's id"):
        letters.show("nonsense")


def test_a_replay_is_slow_enough(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    producer = Producer(producer_configuration(bootstrap_servers))
    for number in range(5):
        send_now(producer, dead_letter_topic("index-vectors").name, b"k", str(number).encode(), [])
    begun = time.monotonic()
    assert len(list(DeadLetters(bootstrap_servers).replay(Filter(stages=["index-vectors"]), rate=5))) == 5
    assert time.monotonic() - begun >= 0.99
