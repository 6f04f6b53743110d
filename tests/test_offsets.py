"""Where a group reads is set for a group without members only, and never in silence."""

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from tenacity import stop_after_delay

from schemas.settings import Kafka
from schemas.topics import SOURCES
from streams.kafka import producer_configuration, send_now
from streams.offsets import client_configuration, committed, partitions_of, rewind
from streams.topics import create_topics

pytestmark = pytest.mark.integration


def test_a_group_with_members_is_not_rewound_and_one_without_is(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    configuration = client_configuration(bootstrap_servers)
    topic, group = SOURCES["index-vectors"].name, "rewound"
    send_now(Producer(producer_configuration(bootstrap_servers)), topic, b"k", b"v", [])
    settings = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    reader = Consumer(configuration | settings)
    reader.subscribe([topic])
    while (message := reader.poll(1)) is None or message.error():
        pass
    reader.commit(message, asynchronous=False)
    partitions = partitions_of(AdminClient(configuration), topic)
    before = committed(bootstrap_servers, group, partitions)
    with pytest.raises(KafkaException, match="Unknown member"):
        rewind.retry_with(stop=stop_after_delay(1))(bootstrap_servers, group, topic)
    assert committed(bootstrap_servers, group, partitions) == before
    reader.close()
    rewind(bootstrap_servers, group, topic)
    assert set(committed(bootstrap_servers, group, partitions).values()) == {0}
