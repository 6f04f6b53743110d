"""Consumer lag as Prometheus metrics, by the names that Kafka's exporters use."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily

from api.ports import GroupLag

VERDICTS = ("OK", "WARN", "STALL", "STOP", "UNKNOWN")

_GROUP = ["consumergroup", "topic"]


class _Lag:
    """What is not known has no sample: a lag of 0 would be a lie."""

    def __init__(self, groups: Sequence[GroupLag]) -> None:
        self._groups = groups

    def collect(self) -> Iterator[Metric]:
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


def lag_metrics(groups: Sequence[GroupLag]) -> bytes:
    """Lag in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Lag(groups))
    return generate_latest(registry)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
