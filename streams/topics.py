"""Creating and checking the topics of the registry."""

import re
import time
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from schemas.records import STAGES
from schemas.settings import Kafka
from schemas.topics import ALL, DOCUMENTS, Topic, group_of, named, retry_group_of
from streams.offsets import client_configuration


def create_topics(bootstrap_servers: str, settings: Kafka, generation: str = "") -> list[str]:
    """Create the topics that are missing; their names.

    Raises:
        RuntimeError: The cluster refused one.
    """
    admin = AdminClient(client_configuration(bootstrap_servers))
    existing = admin.list_topics(timeout=30).topics
    missing = [
        NewTopic(name, settings.partitions, settings.replication_factor, config=dict(topic.config))
        for name, topic in _named(generation)
        if name not in existing
    ]
    for name, created in (admin.create_topics(missing, operation_timeout=30) if missing else {}).items():
        try:
            created.result(timeout=60)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise RuntimeError(f"topic {name} could not be created: {error.args[0].str()}") from error
    return [topic.topic for topic in missing]


def verify_topics(bootstrap_servers: str, generation: str = "") -> list[str]:
    """What differs between the cluster and the registry, in sentences; empty when nothing does."""
    admin = AdminClient(client_configuration(bootstrap_servers))
    existing = admin.list_topics(timeout=30).topics
    problems = [f"{name} does not exist" for name, _ in _named(generation) if name not in existing]
    present = {name: topic for name, topic in _named(generation) if name in existing}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in present]
    for resource, described in (admin.describe_configs(resources) if resources else {}).items():
        found = described.result(timeout=30)
        problems += [
            f"{resource.name}: {key} is {found[key].value}, should be {value}"
            for key, value in present[resource.name].config.items()
            if found[key].value != value
        ]
    counts = {name: len(existing[name].partitions) for name, topic in present.items() if topic.name.endswith(".v1")}
    shared = {name: count for name, count in counts.items() if "dlq" not in name and "status" not in name}
    if len(set(shared.values())) > 1:
        problems.append(f"the stage topics differ in their number of partitions: {shared}")
    return problems


def generations(bootstrap_servers: str) -> set[str]:
    """The generations of the index that have topics, from "" on."""
    existing = AdminClient(client_configuration(bootstrap_servers)).list_topics(timeout=30).topics
    ours = "|".join(re.escape(topic.name) for topic in ALL if topic != DOCUMENTS)
    found = (re.fullmatch(rf"(?:{ours})(?:\.(g\d+))?", name) for name in existing)
    return {match[1] or "" for match in found if match}


def drop_generation(bootstrap_servers: str, generation: str, *, timeout: float = 60.0) -> None:
    """Delete a generation's groups, then its topics; the documents stay.

    Raises:
        TimeoutError: It still has a consumer. Nothing was deleted.
    """
    admin = AdminClient(client_configuration(bootstrap_servers))
    groups = [of(stage, generation) for stage in STAGES for of in (group_of, retry_group_of)]
    deadline = time.monotonic() + timeout
    while busy := [
        name for name, of in admin.describe_consumer_groups(groups).items() if of.result(timeout=30).members
    ]:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{', '.join(busy)} still read; their topics are left")
        time.sleep(0.5)
    for deleted in admin.delete_consumer_groups(groups).values():
        with suppress(KafkaException):  # there is none of that name
            deleted.result(timeout=30)
    existing = admin.list_topics(timeout=30).topics
    topics = [name for name, topic in _named(generation) if name in existing and topic != DOCUMENTS]
    for topic_deleted in (admin.delete_topics(topics, operation_timeout=30) if topics else {}).values():
        topic_deleted.result(timeout=60)


def _named(generation: str) -> list[tuple[str, Topic]]:
    return [(named(topic, generation), topic) for topic in ALL]
