"""Apache Kafka's jars: fetched once by jgo into a cache, checked against the hashes shipped here, reused offline."""

import hashlib
import re
import shutil
from pathlib import Path

import platformdirs

# Resolved one by one: together, the logger's older kafka-clients would win over Kafka's own.
COORDINATES = ("org.apache.kafka:kafka_2.13:4.2.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3")
HASHES = Path(__file__).with_name("kafka_jars.sha256")


def kafka_jars(cache: Path | None = None) -> list[Path]:
    """Every jar that the broker's class path needs.

    Raises:
        RuntimeError: The jars are not cached and cannot be fetched, or one is not the file it should be.
    """
    folder = cache or platformdirs.user_cache_path("aegis-streams") / "jars"
    jars = [folder / name for name in _expected()]
    if all(jar.exists() for jar in jars) and not _wrong(jars):
        return jars
    fetched = _fetched(folder)
    if wrong := _wrong(fetched):
        raise RuntimeError(f"Maven Central gave other files than this version was locked with: {', '.join(wrong)}")
    for jar in fetched:
        shutil.move(jar, folder / jar.name)
    shutil.rmtree(folder / "jgo")
    return jars


def _fetched(folder: Path) -> list[Path]:
    try:
        return _resolve(folder)
    except Exception as error:
        raise RuntimeError(
            f"Apache Kafka could not be fetched from Maven Central into {folder}: {error}. It is needed once; connect "
            "to the network and try again, or set AEGIS_KAFKA__BOOTSTRAP_SERVERS to a Kafka you already run."
        ) from error


def _resolve(folder: Path) -> list[Path]:
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext

    work = folder / "jgo"
    shutil.rmtree(work, ignore_errors=True)  # an interrupted fetch leaves folders that jgo takes for whole
    work.mkdir(parents=True)
    builder = EnvironmentBuilder(context=MavenContext(repo_cache=folder / "repository", timeout=60), cache_dir=work)
    folders = [builder.from_endpoint(coordinate).path for coordinate in COORDINATES]
    jars = [jar for path in folders for name in ("jars", "modules") for jar in sorted((path / name).glob("*.jar"))]
    return list({_artifact(jar): jar for jar in reversed(jars)}.values())


def _artifact(jar: Path) -> str:
    return re.split(r"-\d", jar.name)[0]


def _expected() -> dict[str, str]:
    return {name: digest for digest, name in (line.split() for line in HASHES.read_text().splitlines())}


def _wrong(jars: list[Path]) -> list[str]:
    expected = _expected()
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
