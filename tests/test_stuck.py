"""Documents without progress, on a real broker; and lag beside Kafka's own tool."""

import time

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import headers as names
from schemas.records import StatusRecord
from schemas.settings import Kafka
from schemas.status import DocumentStatus
from schemas.topics import CHUNKS, DOCUMENTS, group_of, retry_topic
from streams.kafka import producer_configuration, send_now
from streams.lag import LagMeter
from streams.offsets import client_configuration, initialise_offsets
from streams.stuck import stuck
from streams.topics import create_topics

pytestmark = pytest.mark.integration


def _status(document_id: str, at: float, **states: str) -> DocumentStatus:
    status = DocumentStatus(document_id=document_id, stages={})
    for stage, state in states.items():
        record = {"document_id": document_id, "version": 1, "stage": stage.replace("_", "-"), "state": state, "at": at}
        status = status.with_record(StatusRecord.model_validate(record))
    return status


def test_what_waits_is_found_where_it_lies(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    for stage, topic in (("chunk", DOCUMENTS), ("embed", CHUNKS), ("extract", CHUNKS)):
        initialise_offsets(bootstrap_servers, group_of(stage), topic.name)  # type: ignore[arg-type]
    producer = Producer(producer_configuration(bootstrap_servers))
    for partition in range(4):
        producer.produce(CHUNKS.name, key=b"read-by-embed", value=b"x", partition=partition)
    producer.flush()
    (embed,) = LagMeter(bootstrap_servers).measure(["embed"])
    read = [TopicPartition(CHUNKS.name, part.partition, part.end) for part in embed.partitions]
    group = group_of("embed")
    admin = AdminClient(client_configuration(bootstrap_servers))
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, read)])[group].result()
    send_now(producer, DOCUMENTS.name, b"new", b"x", [])
    send_now(producer, retry_topic("embed", "1m").name, b"retried", b"x", [(names.STAGE, b"embed")])

    now = time.time()
    unfinished = [
        _status("retried", now - 100, chunk="chunked", embed="retrying"),
        _status("lost", now - 500, chunk="chunked", embed="embedded", extract="extracted", index_graph="indexed"),
        _status("young", now, chunk="chunked"),
    ]
    found = {one.document_id: one for one in stuck(bootstrap_servers, unfinished, older_than=0, limit=100_000)}
    assert (found["new"].state, found["new"].stage, found["new"].topic) == ("unread", "chunk", DOCUMENTS.name)
    assert found["new"].offset is not None
    assert (found["retried"].stage, found["retried"].topic) == ("embed", retry_topic("embed", "1m").name)
    assert (found["lost"].stage, found["lost"].offset) == ("index-vectors", None)
    assert (found["read-by-embed"].stage, found["read-by-embed"].topic) == ("extract", CHUNKS.name)

    old = stuck(bootstrap_servers, unfinished, older_than=400, limit=100_000)
    ids = {one.document_id for one in old}  # the broker is shared: others' records may be among them
    assert "lost" in ids
    assert not ids & {"new", "retried", "young", "read-by-embed"}
    assert len(stuck(bootstrap_servers, unfinished, older_than=0, limit=2)) == 2
