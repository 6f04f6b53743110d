"""How much it takes: what a document costs, measured, extrapolated to a cluster (formulas: docs/capacity.md)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.records import STAGES, StageName
from schemas.topics import CHUNKS, DOCUMENTS, EMBEDDINGS, EXTRACTIONS, STATUS

MEASURED = Path(__file__).with_name("capacity.json")

_DAY = 86_400
_DOZEN = 12  # partitions that 2, 3, 4, 6 and 12 workers share evenly
_MONTH_HOURS = 730
_GIB = 2**30
# Consumer groups that read a topic. All statuses are read by each API process and each chunk worker.
_READERS = {DOCUMENTS.name: 1, CHUNKS.name: 2, EMBEDDINGS.name: 1, EXTRACTIONS.name: 1}
# Qdrant's own rule: vectors in memory take half as much again for the index. float32.
_QDRANT_FACTOR, _FLOAT = 1.5, 4
# Neo4j's record sizes, with room for properties and indexes: a node, a relationship.
_NODE, _RELATIONSHIP = 400, 120


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScaleOut(BaseModel):
    """What `make bench-scale` reports of that which the model says something about."""

    sleep_seconds: float
    overhead_of_a_record_ms: float
    records_per_second: dict[int, float]


class Measured(_Frozen):
    """What `make measure-costs` found on one machine. Without another word, a figure is per chunk."""

    machine: str
    at: str
    documents: int
    words_per_document: float
    chunks_per_document: float
    cpu_seconds: dict[StageName | Literal["broker"], float]
    memory_mb: dict[StageName | Literal["broker"], float]
    topic_bytes: dict[str, float]
    store_bytes: dict[Literal["vectors", "graph"], float]
    mentions: float
    relations: float
    entities: float
    scale_out: ScaleOut


class Load(_Frozen):
    """What has to be carried."""

    documents_per_day: float = Field(gt=0)
    words: float = Field(500, gt=0, description="Words of a document.")
    peak: float = Field(3, ge=1, description="The busiest moment of a day to its mean.")
    days: float = Field(30, gt=0, description="Days of documents that logs and stores hold.")


class Choices(_Frozen):
    """How it is to be carried; assumptions of this model, to be replaced by the operator's own."""

    utilisation: float = Field(0.7, gt=0, lt=1, description="Of a worker at the peak.")
    spare: int = Field(1, ge=0, description="Workers of a stage that may be lost at the peak.")
    replication: int = Field(3, ge=1)
    dimension: int = 384
    faster: float = Field(1.0, gt=0, description="A core there to a core where it was measured.")


class Prices(_Frozen):
    """In any currency; the defaults are assumptions in the order of a large cloud's list prices."""

    core_hour: float = Field(0.04, ge=0)
    memory_gib_hour: float = Field(0.005, ge=0)
    disk_gib_month: float = Field(0.1, ge=0)


class StagePlan(_Frozen):
    """One stage: cores that work at the peak, workers of one core each, how busy the busiest is."""

    service_seconds: float
    cores_at_peak: float
    workers: int
    busiest_at_peak: float


_Stages = dict[StageName, StagePlan]


class BrokerPlan(_Frozen):
    """All brokers together; what they send is to consumers and to the other replicas."""

    cores_at_peak: float
    mb_per_second_in: float
    mb_per_second_out: float
    disk_gib: float


class StorePlan(_Frozen):
    """What the stores hold at last."""

    vectors: int
    qdrant_memory_gib: float
    qdrant_disk_gib: float
    nodes: int
    relationships: int
    neo4j_disk_gib: float


class Plan(_Frozen):
    """What it takes."""

    documents_per_second_at_peak: float
    chunks_per_second_at_peak: float
    stages: dict[StageName, StagePlan]
    partitions: int
    workers_memory_gib: float
    broker: BrokerPlan
    stores: StorePlan
    cpu_seconds_per_1000_documents: float
    cost_per_month: float
    cost_per_1000_documents: float


def measured(path: Path = MEASURED) -> Measured:
    """The figures that came with this version, or one's own.

    Raises:
        ValueError: It is no report of `make measure-costs`.
    """
    return Measured.model_validate_json(path.read_text())


def plan(found: Measured, load: Load, choices: Choices, prices: Prices) -> Plan:
    """What it takes to carry the load."""
    chunks = chunks_of(found, load.words)
    at_peak = load.documents_per_day / _DAY * load.peak
    services = {stage: service_seconds(found, stage, load.words, choices) for stage in STAGES}
    stages, partitions = _stages(services, at_peak, choices)
    kept = load.documents_per_day * load.days * chunks
    broker = _broker(found, at_peak * chunks, kept, stages["chunk"].workers, choices)
    stores = _stores(found, kept, choices)
    memory = sum(one.workers * found.memory_mb[stage] for stage, one in stages.items()) * 1e6 / _GIB
    workers = sum(one.workers for one in stages.values())
    cost = prices.core_hour * _MONTH_HOURS * (workers + broker.cores_at_peak / choices.utilisation)
    cost += prices.memory_gib_hour * _MONTH_HOURS * (memory + stores.qdrant_memory_gib)
    cost += prices.disk_gib_month * (broker.disk_gib + stores.qdrant_disk_gib + stores.neo4j_disk_gib)
    return Plan(
        documents_per_second_at_peak=round(at_peak, 2),
        chunks_per_second_at_peak=round(at_peak * chunks, 1),
        stages=stages,
        partitions=partitions,
        workers_memory_gib=round(memory, 1),
        broker=broker,
        stores=stores,
        cpu_seconds_per_1000_documents=round(1000 * chunks * sum(found.cpu_seconds.values()), 1),
        cost_per_month=round(cost, 2),
        cost_per_1000_documents=round(1000 * cost / (load.documents_per_day * _MONTH_HOURS / 24), 4),
    )


def chunks_of(found: Measured, words: float) -> float:
    """Chunks of a document of so many words."""
    return words * found.chunks_per_document / found.words_per_document


def service_seconds(found: Measured, stage: StageName, words: float, choices: Choices) -> float:
    """CPU seconds of a stage for a document of so many words."""
    return found.cpu_seconds[stage] * chunks_of(found, words) / choices.faster


def _stages(services: Mapping[StageName, float], at_peak: float, choices: Choices) -> tuple[_Stages, int]:
    """The stages, and the partitions that all topics have: those of the largest stage."""
    fewest = {stage: _fewest(service * at_peak, choices) for stage, service in services.items()}
    partitions = _DOZEN * math.ceil(2 * max(fewest.values()) / _DOZEN)
    return {
        stage: _stage(service, at_peak, range(fewest[stage], partitions + 1), partitions, choices)
        for stage, service in services.items()
    }, partitions


def _fewest(cores: float, choices: Choices) -> int:
    return max(math.ceil(cores / choices.utilisation), math.ceil(cores) + choices.spare)


def _stage(service: float, at_peak: float, allowed: range, partitions: int, choices: Choices) -> StagePlan:
    """With as many workers as the one that has most partitions needs, for partitions are whole."""
    cores = service * at_peak
    busiest = {workers: cores * math.ceil(partitions / workers) / partitions for workers in allowed}
    workers = next(workers for workers, busy in busiest.items() if busy <= choices.utilisation)
    return StagePlan(
        service_seconds=round(service, 5),
        cores_at_peak=round(cores, 3),
        workers=workers,
        busiest_at_peak=round(busiest[workers], 3),
    )


def _broker(found: Measured, chunks_at_peak: float, kept: float, chunk_workers: int, choices: Choices) -> BrokerPlan:
    size = sum(found.topic_bytes.values())
    read = sum(found.topic_bytes.get(topic, 0) * groups for topic, groups in _READERS.items())
    read += found.topic_bytes.get(STATUS.name, 0) * (1 + chunk_workers) + size * (choices.replication - 1)
    cores = found.cpu_seconds["broker"] * chunks_at_peak * choices.replication / choices.faster
    return BrokerPlan(
        cores_at_peak=round(cores, 2),
        mb_per_second_in=round(chunks_at_peak * size * choices.replication / 1e6, 2),
        mb_per_second_out=round(chunks_at_peak * read / 1e6, 2),
        disk_gib=round(kept * size * choices.replication / _GIB, 1),
    )


def _stores(found: Measured, kept: float, choices: Choices) -> StorePlan:
    nodes, relationships = kept * (1 + found.entities), kept * (found.mentions + found.relations)
    return StorePlan(
        vectors=round(kept),
        qdrant_memory_gib=round(kept * choices.dimension * _FLOAT * _QDRANT_FACTOR / _GIB, 1),
        qdrant_disk_gib=round(kept * found.store_bytes["vectors"] / _GIB, 1),
        nodes=round(nodes),
        relationships=round(relationships),
        neo4j_disk_gib=round((nodes * _NODE + relationships * _RELATIONSHIP) / _GIB, 1),
    )
