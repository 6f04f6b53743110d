"""Run one scenario from an empty folder to its verdict."""

import tempfile
import time
from pathlib import Path

from streams.publisher import Publisher
from tests.fault.cluster import Cluster
from tests.fault.scenarios import SCENARIOS, Load
from tests.fault.verify import Verdict, verify


def run_scenario(name: str, load: Load, *, settle: float = 600.0) -> Verdict:
    """Start a fresh cluster, run the scenario, wait for lag 0, verify."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aegis-fault-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            with Publisher(cluster.servers, cluster.settings) as publisher:
                expected = SCENARIOS[name](cluster, publisher, load)
            left = cluster.wait_for_no_lag(timeout=settle)
            verdict = verify(cluster, expected, Verdict(scenario=name, lag=left))
        finally:
            cluster.close()
    verdict.seconds = round(time.monotonic() - begun, 1)
    return verdict
