"""A broker and one process per stage, supervised as `aegis up` does it, so that each can be killed alone."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.broker import Broker, free_port
from deploy.local.supervisor import Child, Supervisor, command_child
from schemas.records import STAGES, StageName
from schemas.settings import Settings
from schemas.topics import SOURCES, group_of
from streams.lag import LagMeter, unread
from streams.offsets import client_configuration, partitions_of
from streams.topics import create_topics


class Cluster:
    """The running system of one scenario. Touching ``flags/<name>`` makes the faulty workers fail that way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flags = folder / "flags"
        self.flags.mkdir(parents=True)
        self.broker = Broker(folder / "broker")
        self.broker.start()
        self.settings = Settings(data_dir=folder / "data", kafka={"bootstrap_servers": self.servers})
        self.settings.data_dir.mkdir()
        create_topics(self.servers, self.settings.kafka)
        self.ports = {stage: free_port() for stage in STAGES}
        self.children: dict[str, Child] = {stage: self._child(stage, stage, self.ports[stage]) for stage in STAGES}
        self.supervisor = Supervisor(list(self.children.values()), backoff_max=1.0)

    @property
    def servers(self) -> str:
        """Bootstrap servers."""
        return self.broker.bootstrap_servers

    def start(self) -> None:
        """Start every stage and wait until it takes records."""
        self.supervisor.start()
        self.wait_until_up()

    def restart_workers(self) -> None:
        """Start the stages again after ``stop_workers``."""
        self.supervisor = Supervisor(list(self.children.values()), backoff_max=1.0)
        for child in self.children.values():
            child.process = None
        self.start()

    def stop_workers(self) -> None:
        """Stop every stage cleanly."""
        self.supervisor.stop()

    def close(self) -> None:
        """Stop everything."""
        self.supervisor.stop()
        self.broker.stop()

    def kill(self, stage: StageName, number: int = signal.SIGKILL) -> None:
        """Send a signal to a stage's process; the supervisor starts it again."""
        process = self.children[stage].process
        if process is not None and process.poll() is None:
            os.kill(process.pid, number)

    @contextmanager
    def another_worker(self, stages: Sequence[StageName], *, number: int = signal.SIGTERM) -> Iterator[None]:
        """A second process of these stages, ended by the signal on leaving."""
        port = free_port()
        child = self._child("second", ",".join(stages), port)
        child.start()
        _wait_ready(port, time.monotonic() + 60)
        try:
            yield
        finally:
            if child.process is not None:
                os.kill(child.process.pid, number)
                child.process.wait(60)

    def wait_until_up(self, *, timeout: float = 90.0) -> None:
        """Wait until every stage answers."""
        deadline = time.monotonic() + timeout
        for port in self.ports.values():
            _wait_ready(port, deadline)

    def lag(self) -> int:
        """Unread records of all stages and retry tiers; a group that never committed counts as far behind."""
        return unread(LagMeter(self.servers).measure(retries=True))

    def wait_for_no_lag(self, *, timeout: float) -> int:
        """Wait until nothing is left to read; the lag that is left."""
        return LagMeter(self.servers).wait_until_read(timeout=timeout)

    def rewind(self) -> None:
        """Make every stage read its whole topic again. The workers have to be stopped."""
        admin = AdminClient(client_configuration(self.servers))
        for stage in STAGES:
            starts = [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions_of(admin, SOURCES[stage].name)]
            group = group_of(stage)
            deadline = time.monotonic() + 60
            while admin.describe_consumer_groups([group])[group].result().members:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{group} still has members")
                time.sleep(0.5)
            admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, starts)])[group].result()

    def _child(self, name: str, stages: str, port: int) -> Child:
        command = [sys.executable, "-m", "tests.fault.faulty_worker", stages, str(port), str(self.flags)]
        environment = {
            "AEGIS_DATA_DIR": str(self.settings.data_dir),
            "AEGIS_KAFKA__BOOTSTRAP_SERVERS": self.servers,
            "AEGIS_KAFKA__SESSION_TIMEOUT": "6",
            "AEGIS_EMBEDDING__THREADS": "1",
        }
        return command_child(name, command, self.folder / f"{name}.log", environment)


def _wait_ready(port: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"no stage answers on port {port}")
