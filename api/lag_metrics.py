"""Lag and progress as Prometheus metrics; consumer lag by the names that Kafka's exporters use."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from api.ports import DeadLetters, GroupLag, StatusView
from schemas.dead_letters import Backlog

VERDICTS = ("OK", "WARN", "STALL", "REWIND", "STOP", "UNKNOWN")

_GROUP = ["consumergroup", "topic"]


class Lag(Collector):
    """What is not known has no sample: a lag of 0 would be a lie."""

    def __init__(self, groups: Sequence[GroupLag]) -> None:
        self._groups = groups

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As a collector of Prometheus' client."""
        partitions = GaugeMetricFamily(
            "kafka_consumergroup_lag",
            "Records of a partition that the group has not read.",
            labels=["consumergroup", "topic", "partition"],
        )
        records = GaugeMetricFamily(
            "kafka_consumergroup_group_lag", "Records that the group has not read.", labels=_GROUP
        )
        seconds = GaugeMetricFamily(
            "kafka_consumergroup_group_lag_seconds",
            "Age of the oldest record that the group has not read.",
            labels=_GROUP,
        )
        eta = GaugeMetricFamily(
            "aegis_consumergroup_drain_eta_seconds", "Until the lag is gone, at the present pace.", labels=_GROUP
        )
        verdicts = GaugeMetricFamily(
            "aegis_consumergroup_verdict", "1 for the verdict that holds.", labels=["consumergroup", "verdict"]
        )
        for group in self._groups:
            for one in group.partitions:
                _add(partitions, [group.group, one.topic, str(one.partition)], one.records)
            _add(records, [group.group, group.topic], group.records)
            _add(seconds, [group.group, group.topic], group.seconds)
            _add(eta, [group.group, group.topic], group.eta_seconds)
            for verdict in VERDICTS:
                _add(verdicts, [group.group, verdict], float(group.verdict == verdict))
        yield from (partitions, records, seconds, eta, verdicts)


@dataclass(frozen=True, eq=False)  # a registry wants it hashable
class Progress(Collector):
    """Documents by state, when the one that waits longest last got on (None: none waits), and dead letters."""

    documents: Mapping[str, int]
    oldest_unfinished: float | None
    dead_letters: Sequence[Backlog]

    @classmethod
    def of(cls, status: StatusView, dead_letters: DeadLetters) -> "Progress":
        """As of now.

        Raises:
            Exception: The broker does not answer.
        """
        waiting = min((one.changed_at for one in status.unfinished()), default=None)
        return cls(status.counts(), waiting, dead_letters.backlog())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As a collector of Prometheus' client."""
        now = time.time()
        documents = GaugeMetricFamily("aegis_documents", "Documents by state, as far as remembered.", labels=["state"])
        for state, count in self.documents.items():
            documents.add_metric([state], count)
        oldest = GaugeMetricFamily(
            "aegis_oldest_unfinished_document_seconds", "Since the last progress of the document that waits longest."
        )
        oldest.add_metric([], _age(self.oldest_unfinished, now))
        letters = GaugeMetricFamily("aegis_dead_letters", "Dead letters that nobody has resolved.", labels=["stage"])
        ages = GaugeMetricFamily(
            "aegis_dead_letters_oldest_seconds",
            "Age of the oldest dead letter that nobody has resolved.",
            labels=["stage"],
        )
        for backlog in self.dead_letters:
            letters.add_metric([backlog.stage], backlog.count)
            ages.add_metric([backlog.stage], _age(backlog.oldest, now))
        yield from (documents, oldest, letters, ages)


def lag_metrics(groups: Sequence[GroupLag]) -> bytes:
    """Lag in Prometheus' text format."""
    return _text(Lag(groups))


def progress_metrics(progress: Progress) -> bytes:
    """Progress in Prometheus' text format."""
    return _text(progress)


def _text(collector: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _age(moment: float | None, now: float) -> float:
    return 0.0 if moment is None else max(0.0, now - moment)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
