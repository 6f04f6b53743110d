"""Lag measured from outside, on a real broker."""

import time

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.settings import Kafka
from schemas.topics import DOCUMENTS, SOURCES, group_of
from streams.kafka import producer_configuration
from streams.lag import LagMeter, _Trend, _verdict
from streams.offsets import client_configuration, initialise_offsets
from streams.topics import create_topics, verify_topics
from tests.kafka_tools import described_lag

pytestmark = pytest.mark.integration


def test_lag_is_unknown_then_counted_then_aged(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    assert verify_topics(bootstrap_servers) == []
    group, topic = group_of("index-vectors"), SOURCES["index-vectors"].name
    admin = AdminClient(client_configuration(bootstrap_servers))
    meter = LagMeter(bootstrap_servers)
    (before,) = meter.measure(["index-vectors"])
    assert (before.records, before.seconds, before.verdict) == (None, None, "UNKNOWN")

    already = sum(part.end for part in before.partitions)
    producer = Producer(producer_configuration(bootstrap_servers))
    an_hour_ago = int((time.time() - 3600) * 1000)
    for number in range(100):
        producer.produce(topic, key=str(number).encode(), value=b"x", timestamp=an_hour_ago)
    producer.flush()
    initialise_offsets(bootstrap_servers, group, topic)
    (behind,) = meter.measure(["index-vectors"])
    assert behind.records == already + 100
    assert behind.verdict == "STOP"
    assert behind.seconds == pytest.approx(3600, abs=60)
    assert sum(part.records or 0 for part in behind.partitions) == already + 100

    ends = [TopicPartition(topic, part.partition, part.end) for part in behind.partitions]
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, ends)])[group].result()
    time.sleep(0.3)
    (drained,) = meter.measure(["index-vectors"])
    assert (drained.records, drained.seconds, drained.eta_seconds, drained.verdict) == (0, 0.0, 0.0, "OK")
    assert drained.records_per_second is not None
    assert drained.records_per_second > 0


def test_initialising_offsets_never_moves_committed_ones(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    group = "test-initialise"
    admin = AdminClient(client_configuration(bootstrap_servers))
    there = [TopicPartition(DOCUMENTS.name, 1, 3)]
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, there)])[group].result()
    initialise_offsets(bootstrap_servers, group, DOCUMENTS.name)
    request = ConsumerGroupTopicPartitions(group)
    found = admin.list_consumer_group_offsets([request])[group].result().topic_partitions
    assert {tp.partition: tp.offset for tp in found} == {0: 0, 1: 3, 2: 0, 3: 0}


@pytest.mark.parametrize(
    ("records", "members", "trend", "verdict"),
    [
        (None, 1, None, "UNKNOWN"),
        (0, 0, None, "OK"),
        (5, 0, None, "STOP"),
        (5, 1, None, "OK"),
        (5, 1, _Trend(read=0, gained=0, seconds=2), "OK"),
        (5, 1, _Trend(read=0, gained=1, seconds=20), "STALL"),
        (5, 1, _Trend(read=3, gained=1, seconds=20), "WARN"),
        (5, 1, _Trend(read=3, gained=-1, seconds=20), "OK"),
    ],
)
def test_verdicts(records: int | None, members: int, trend: _Trend | None, verdict: str) -> None:
    assert _verdict(records, members, trend) == verdict


def test_lag_is_what_kafkas_own_tool_says(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    group, topic = group_of("extract"), SOURCES["extract"].name
    producer = Producer(producer_configuration(bootstrap_servers))
    for number in range(137):
        producer.produce(topic, key=str(number).encode(), value=b"x")
    producer.flush()
    initialise_offsets(bootstrap_servers, group, topic)
    read = [TopicPartition(topic, partition, 5 * partition) for partition in range(4)]
    admin = AdminClient(client_configuration(bootstrap_servers))
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, read)])[group].result()

    (ours,) = LagMeter(bootstrap_servers).measure(["extract"])
    theirs = described_lag(bootstrap_servers, group)
    assert {
        (part.topic, part.partition): (part.committed, part.end, part.records) for part in ours.partitions
    } == theirs
    assert sum(lag for _, _, lag in theirs.values()) == ours.records


def test_an_offset_that_goes_back_is_a_rewind(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    group, topic = group_of("index-vectors"), SOURCES["index-vectors"].name
    admin, meter = AdminClient(client_configuration(bootstrap_servers)), LagMeter(bootstrap_servers)
    producer = Producer(producer_configuration(bootstrap_servers))
    producer.produce(topic, key=b"k", value=b"x", partition=2)
    producer.flush()
    ends = {part.partition: part.end for part in meter.measure(["index-vectors"])[0].partitions}
    verdicts = []
    for back in (0, 1):
        there = [TopicPartition(topic, partition, end - back * (partition == 2)) for partition, end in ends.items()]
        admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, there)])[group].result()
        time.sleep(0.3)
        (lag,) = meter.measure(["index-vectors"])
        verdicts.append(lag.verdict)
    assert verdicts == ["OK", "REWIND"]
