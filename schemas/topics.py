"""The topic registry: every topic's name, key and configuration, and nowhere else a topic's name."""

from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

from schemas.records import STAGES, StageName

# Retention without end: a record must not expire before it is read. Room beyond the largest document record
# (the broker's default of 1 MiB), because the records made from it, and a dead letter's headers, are larger.
_CONFIG = {"retention.ms": "-1", "max.message.bytes": str(3 * 1024 * 1024)}
_COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "max.compaction.lag.ms": "3600000"}


@dataclass(frozen=True)
class Topic:
    """A topic and how it is created; all have as many partitions as the setting ``kafka.partitions`` says."""

    name: str
    description: str
    config: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType(_CONFIG))


DOCUMENTS = Topic(
    "aegis.documents.v1",
    "What producers publish; the log the index can be rebuilt from.",
    # Twice the usual limit of a producer (1 MiB): a retried record comes back with more headers, or compressed worse.
    MappingProxyType({"retention.ms": "-1", "max.message.bytes": str(2 * 1024 * 1024)}),
)
CHUNKS = Topic("aegis.chunks.v1", "Pieces of documents, and marks (delete, touch).")
EMBEDDINGS = Topic("aegis.embeddings.v1", "Chunks with their vectors.")
EXTRACTIONS = Topic(
    "aegis.extractions.v1", "Chunks with their mentions and relations, and what people decided about entities."
)
STATUS = Topic(
    "aegis.status.v1",
    "Where every document is; one record per document and stage survives compaction.",
    MappingProxyType(_COMPACTED),
)
RESOLUTIONS = Topic(
    "aegis.dlq.resolutions.v1",
    "Which dead letters were replayed or dropped; keyed by the dead letter's topic, partition and offset.",
    MappingProxyType(_COMPACTED),
)

SOURCES: dict[StageName, Topic] = {
    "chunk": DOCUMENTS,
    "embed": CHUNKS,
    "extract": CHUNKS,
    "index-vectors": EMBEDDINGS,
    "index-graph": EXTRACTIONS,
}
RETRY_DELAYS: dict[str, timedelta] = {
    "5s": timedelta(seconds=5),
    "1m": timedelta(minutes=1),
    "10m": timedelta(minutes=10),
}


def retry_topic(stage: StageName, delay: str) -> Topic:
    """The topic in which a stage's failed records wait for ``delay``."""
    return Topic(f"aegis.{stage}.retry.{delay}", f"Records of {stage} that are tried again after {delay}.")


def dead_letter_topic(stage: StageName) -> Topic:
    """The topic in which a stage's given-up records wait for a person."""
    return Topic(f"aegis.{stage}.dlq", f"Records that {stage} could not process, byte-identical, with the reason.")


TARGETS: dict[StageName, Topic] = {"chunk": CHUNKS, "embed": EMBEDDINGS, "extract": EXTRACTIONS}


def named(topic: Topic, generation: str = "") -> str:
    """What the topic is called in a generation of the index; all of them read the same documents."""
    return f"{topic.name}.{generation}" if generation and topic.name != DOCUMENTS.name else topic.name


def group_of(stage: StageName, generation: str = "") -> str:
    """Consumer group (and Faust app id) of a stage."""
    return _suffixed(f"aegis-{stage}", generation)


def retry_group_of(stage: StageName, generation: str = "") -> str:
    """Consumer group that moves a stage's due records from its retry topics back to its source."""
    return _suffixed(f"aegis-{stage}-retry", generation)


def _suffixed(group: str, generation: str) -> str:
    return f"{group}-{generation}" if generation else group


ALL: tuple[Topic, ...] = (
    DOCUMENTS,
    CHUNKS,
    EMBEDDINGS,
    EXTRACTIONS,
    STATUS,
    RESOLUTIONS,
    *(retry_topic(stage, delay) for stage in STAGES for delay in RETRY_DELAYS),
    *(dead_letter_topic(stage) for stage in STAGES),
)
