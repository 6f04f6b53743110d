"""A short history on the embedded stores; `make soak-history` runs long ones, on Neo4j too."""

import pytest

from tests.history.drawn import drawn
from tests.history.run import run_history


@pytest.mark.fault
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_history_with_kills_ends_like_a_fresh_ingest_of_what_is_left() -> None:
    verdict = run_history(drawn(seed=7, length=80, kills=2), graph="ladybug", pace=20)
    assert verdict.is_clean, verdict
