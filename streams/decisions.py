"""What people decided about entities, carried from one generation of the index to the next."""

import json

from confluent_kafka import Producer

from schemas.headers import original
from schemas.topics import EXTRACTIONS, named
from streams.kafka import producer_configuration, read_all, send_now


def carry_decisions(bootstrap_servers: str, *, source: str, target: str) -> None:
    """Send a generation's decisions to another; what is there already changes nothing, for the newest of a pair counts.

    Raises:
        LookupError: One of the generations has no topics.
        KafkaException: The broker does not take them.
        TimeoutError: The broker does not answer.
    """
    producer = Producer(producer_configuration(bootstrap_servers))
    for record in read_all(bootstrap_servers, [named(EXTRACTIONS, source)]):
        if _is_decision(record.value or b""):
            send_now(producer, named(EXTRACTIONS, target), record.key, record.value, original(record.headers))


def _is_decision(value: bytes) -> bool:
    if b'"decision"' not in value:  # nearly all of them are chunks, and large
        return False
    try:
        return bool(json.loads(value)["kind"] == "decision")
    except (ValueError, KeyError, TypeError):  # a dead letter by now
        return False
