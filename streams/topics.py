"""Creating and checking the topics of the registry."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from schemas.settings import Kafka
from schemas.topics import ALL
from streams.offsets import client_configuration


def create_topics(bootstrap_servers: str, settings: Kafka) -> list[str]:
    """Create the topics that are missing; their names.

    Raises:
        RuntimeError: The cluster refused one.
    """
    admin = AdminClient(client_configuration(bootstrap_servers))
    existing = admin.list_topics(timeout=30).topics
    missing = [
        NewTopic(topic.name, settings.partitions, settings.replication_factor, config=dict(topic.config))
        for topic in ALL
        if topic.name not in existing
    ]
    for name, created in (admin.create_topics(missing, operation_timeout=30) if missing else {}).items():
        try:
            created.result(timeout=60)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise RuntimeError(f"topic {name} could not be created: {error.args[0].str()}") from error
    return [topic.topic for topic in missing]


def verify_topics(bootstrap_servers: str) -> list[str]:
    """What differs between the cluster and the registry, in sentences; empty when nothing does."""
    admin = AdminClient(client_configuration(bootstrap_servers))
    existing = admin.list_topics(timeout=30).topics
    problems = [f"{topic.name} does not exist" for topic in ALL if topic.name not in existing]
    present = [topic for topic in ALL if topic.name in existing]
    resources = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in present}
    for resource, described in (admin.describe_configs(list(resources)) if resources else {}).items():
        found = described.result(timeout=30)
        topic = next(topic for topic in present if topic.name == resource.name)
        problems += [
            f"{topic.name}: {key} is {found[key].value}, should be {value}"
            for key, value in topic.config.items()
            if found[key].value != value
        ]
    counts = {topic.name: len(existing[topic.name].partitions) for topic in present if topic.name.endswith(".v1")}
    shared = {name: count for name, count in counts.items() if "dlq" not in name and "status" not in name}
    if len(set(shared.values())) > 1:
        problems.append(f"the stage topics differ in their number of partitions: {shared}")
    return problems
