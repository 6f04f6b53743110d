"""A stage that stalls ends its process; one that works on a long batch does not."""

import subprocess
import sys
import time

import pytest
from confluent_kafka import Producer

from schemas.settings import Kafka
from schemas.topics import SOURCES
from streams.kafka import producer_configuration, send_now
from streams.topics import create_topics
from streams.watchdog import EXIT_STALLED

pytestmark = pytest.mark.integration

_PROGRAM = """
import sys, threading
from schemas.settings import Watchdog
from streams.health import StageHealth
from streams.watchdog import start_watchdog

health = StageHealth("extract", partitions=frozenset(range(100)))
with health.working():
    start_watchdog(health, sys.argv[1], Watchdog(stall=1, batch=1000))
    print("working", flush=True)
    sys.stdin.readline()
print("idle", flush=True)
threading.Event().wait()
"""


def test_lag_without_a_batch_under_way_ends_the_process(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, Kafka())
    producer = Producer(producer_configuration(bootstrap_servers))
    send_now(producer, SOURCES["extract"].name, b"nobody reads it", b"", [])
    command = [sys.executable, "-c", _PROGRAM, bootstrap_servers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        time.sleep(5)  # the stall is over and over again; a watchdog that took no notice of the batch would act
        assert process.poll() is None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(timeout=120) == EXIT_STALLED
