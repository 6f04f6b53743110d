"""A short history on each graph; `make soak-history` runs long ones."""

import pytest

from tests.history.drawn import drawn
from tests.history.run import run_history
from tests.neo4j_server import TIMEOUT


@pytest.mark.fault
@pytest.mark.integration
@pytest.mark.timeout(600 + TIMEOUT)
@pytest.mark.parametrize("graph", ["ladybug", "neo4j"])
def test_a_history_with_kills_ends_like_a_fresh_ingest_of_what_is_left(graph: str) -> None:
    verdict = run_history(drawn(seed=7, length=80, kills=2), graph=graph, pace=20)
    assert verdict.is_clean, verdict
