"""Brokers behind TLS, certificates and passwords: every client of the product gets through the same door."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.local.supervisor import command_child
from schemas.records import DocumentRecord
from schemas.settings import Kafka, Settings, settings_from_environment
from schemas.topics import CHUNKS
from streams.kafka import read_all
from streams.publisher import Publisher
from streams.security import rdkafka_security, tls_context
from tests.secured_broker import PASSWORD, USER, SecuredBroker
from tests.waiting import until


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"security_protocol": "SSL"}, "BOOTSTRAP_SERVERS"),
        ({"security_protocol": "SASL_SSL", "bootstrap_servers": "b:1", "sasl_username": "x"}, "SASL_PASSWORD"),
        ({"ssl_cert_file": "/cert.pem"}, "SSL_KEY_FILE"),
    ],
)
def test_half_a_security_is_refused(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Kafka.model_validate(wrong)


def test_a_wrong_setting_does_not_show_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("AEGIS_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(ValueError, match="BOOTSTRAP_SERVERS") as caught:
        settings_from_environment()
    assert "hunter2" not in str(caught.value)


def test_nothing_is_shown_where_nothing_is_set() -> None:
    assert rdkafka_security(Kafka()) == {"security.protocol": "PLAINTEXT"}
    assert tls_context(Kafka()) is None


def test_a_certificate_that_is_not_there_is_named() -> None:
    settings = Kafka.model_validate(
        {"bootstrap_servers": "b:1", "security_protocol": "SSL", "ssl_ca_file": "/nowhere/ca.pem"}
    )
    with pytest.raises(ValueError, match="/nowhere/ca"):
        tls_context(settings)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SecuredBroker]:
    started = SecuredBroker(tmp_path / "broker")
    started.start()
    yield started
    started.stop()


@pytest.mark.integration
def test_every_client_gets_through_the_secured_door(broker: SecuredBroker, tmp_path: Path) -> None:
    environment = {
        "AEGIS_DATA_DIR": str(tmp_path),
        "AEGIS_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{broker.secured_port}",
        "AEGIS_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "AEGIS_KAFKA__SASL_USERNAME": USER,
        "AEGIS_KAFKA__SASL_PASSWORD": PASSWORD,
        "AEGIS_KAFKA__SSL_CA_FILE": str(broker.folder / "ca.pem"),
        "AEGIS_KAFKA__SSL_CERT_FILE": str(broker.folder / "client.pem"),
        "AEGIS_KAFKA__SSL_KEY_FILE": str(broker.folder / "key.pem"),
    }
    kafka = {name.rpartition("__")[2].lower(): value for name, value in environment.items() if "KAFKA__" in name}
    _aegis(environment, "topics", "create")
    command = [sys.executable, "-m", "deploy.cli", "worker", "--stage", "chunk"]
    worker = command_child("worker", command, tmp_path / "worker.log", environment)
    worker.start()
    try:
        with Publisher(kafka["bootstrap_servers"], Settings(data_dir=tmp_path, kafka=kafka)) as publisher:
            publisher.publish(DocumentRecord(document_id="sealed", text="Letters under seal."))
        chunks = partial(read_all, broker.bootstrap_servers, [CHUNKS.name])
        until(lambda: list(chunks()), what=worker.last_words)
        lag = {one["stage"]: one["records"] for one in _aegis(environment, "lag")}
        assert (lag["chunk"], lag["embed"]) == (0, None)
    finally:
        worker.stop()
    wrong = Kafka.model_validate(kafka | {"sasl_password": "guessed"})
    with pytest.raises(KafkaException):
        AdminClient(
            {"bootstrap.servers": wrong.bootstrap_servers, "log_level": 0, **rdkafka_security(wrong)}
        ).list_topics(timeout=3)


def _aegis(environment: dict[str, str], *arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found
