"""A short version of every fault scenario; `make fault` runs them at full size."""

import pytest

from tests.fault.run import run_scenario
from tests.fault.scenarios import SCENARIOS, Load


@pytest.mark.fault
@pytest.mark.integration
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_duplicated_or_stale(scenario: str) -> None:
    verdict = run_scenario(scenario, Load(documents=100, pace=20), settle=180)
    assert verdict.is_clean, verdict
