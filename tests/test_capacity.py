"""The capacity model: its plan, its simulated day against queueing theory and against a measured scale-out."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.capacity import Choices, Load, Prices, measured, plan
from deploy.capacity_day import MAX_DOCUMENTS, Loss, arrivals, departures, simulate, stage_departures
from deploy.cli import app
from schemas.records import STAGES, StageName

NOTHING: dict[StageName, float] = dict.fromkeys(STAGES, 0.0)
ONE: dict[StageName, int] = dict.fromkeys(STAGES, 1)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("variation", [0.0, 1.0])
def test_waiting_is_what_pollaczek_and_khinchine_say(load: float, variation: float) -> None:
    """M/D/1 and M/M/1: mean wait = load * service * (1 + variation^2) / (2 * (1 - load))."""
    random, service = np.random.default_rng(1), 0.5
    came = np.cumsum(random.exponential(service / load, 400_000))
    services = service * (random.gamma(variation**-2, variation**2, len(came)) if variation else np.ones(len(came)))
    waited = departures(came, services) - came - services
    assert waited.mean() == pytest.approx(load * service * (1 + variation**2) / (2 * (1 - load)), rel=0.05)


def test_an_overloaded_stage_falls_behind_as_a_fluid_does() -> None:
    came = np.arange(10_000) / 10.0  # 10 a second for 1000 s; each of two workers can do 4
    partition = np.arange(10_000) % 12
    left = stage_departures(came, np.full(10_000, 0.25), partition, 2)
    assert (left > 1000).sum() == pytest.approx((10 - 8) * 1000, rel=0.01)
    assert left.max() == pytest.approx(10_000 / 8, rel=0.01)


def test_the_measured_scale_out_is_what_the_model_says() -> None:
    figures = measured().scale_out
    service = figures.sleep_seconds + figures.overhead_of_a_record_ms / 1000
    for workers, measured_rate in figures.records_per_second.items():
        records = 12 * workers * 100
        left = stage_departures(np.zeros(records), np.full(records, service), np.arange(records) % 12, workers)
        assert records / left.max() == pytest.approx(measured_rate, rel=0.1)


def test_a_lost_workers_records_wait_until_the_others_have_its_partitions() -> None:
    came, service = np.arange(0.0, 1000.0, 0.25), np.full(4000, 0.1)
    partition = np.arange(4000) % 12
    loss = Loss("embed", at=500.0, seconds=200.0, noticed=30.0)
    lag = stage_departures(came, service, partition, 4, loss) - came
    hit = (partition % 4 == 0) & (came > 500) & (came < 530)
    assert lag[came < 499].max() < 0.2
    assert lag[hit].max() == pytest.approx(30, abs=2)
    assert lag[~hit & (came > 560)].max() < 0.5
    assert lag[(partition % 4 == 0) & (came > 700)].max() < 0.2
    alone = stage_departures(came, service, partition, 1, loss) - came
    assert alone[came < 700].max() == pytest.approx(200, abs=1)


@pytest.mark.parametrize("peak", [1.0, 3.0, 8.0])
def test_a_day_has_its_documents_and_its_peak(peak: float) -> None:
    came = arrivals(np.random.default_rng(2), 500_000, peak)
    counts = np.histogram(came, bins=np.arange(145) * 600)[0]
    assert len(came) == pytest.approx(500_000, rel=0.01)
    assert (np.diff(came) >= 0).all()
    assert counts.max() / counts.mean() == pytest.approx(peak, rel=0.08)


def test_a_day_is_the_same_for_the_same_seed_and_slower_with_a_loss() -> None:
    services, workers = NOTHING | {"embed": 0.5}, ONE | {"embed": 4}
    quiet, again = (simulate(100_000, services, workers, partitions=24, peak=3, seed=7) for _ in range(2))
    hurt = simulate(100_000, services, workers, partitions=24, peak=3, seed=7, loss=Loss("embed"))
    assert quiet == again
    assert quiet.stage_max["chunk"] == 0
    assert quiet.searchable_max == quiet.stage_max["embed"]
    assert quiet.indexed_max == 0
    assert hurt.searchable_max > max(30, quiet.searchable_max)
    assert hurt.caught_up_after is not None and hurt.caught_up_after > 30
    with pytest.raises(ValueError, match="more than"):
        simulate(MAX_DOCUMENTS + 1, services, workers, partitions=12)


def test_a_plan_carries_its_peak_and_grows_with_the_load() -> None:
    found = measured()
    one, ten = (plan(found, Load(documents_per_day=load), Choices(), Prices()) for load in (1_000_000.0, 10_000_000.0))
    for stage in ten.stages.values():
        assert stage.busiest_at_peak <= 0.7
        assert stage.workers - 1 >= stage.cores_at_peak
        assert stage.workers <= ten.partitions
    assert ten.stores.vectors == pytest.approx(10 * one.stores.vectors, rel=0.01)
    assert ten.broker.mb_per_second_in == pytest.approx(10 * one.broker.mb_per_second_in, rel=0.01)
    assert ten.cost_per_1000_documents <= one.cost_per_1000_documents
    free = plan(found, Load(documents_per_day=1), Choices(), Prices(core_hour=0, memory_gib_hour=0, disk_gib_month=0))
    assert free.cost_per_month == 0


def test_the_command_says_what_it_takes() -> None:
    done = CliRunner().invoke(app, ["capacity", "--documents-per-day", "20000", "--words", "500", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["plan"]["stages"].keys() == set(STAGES)
    assert found["day"]["documents"] == pytest.approx(20_000, rel=0.05)
    assert found["day"]["searchable_p95"] < 60
    assert CliRunner().invoke(app, ["capacity", "--documents-per-day", "20000"]).exit_code == 0


def test_the_page_has_the_figures_that_come_with_this_version() -> None:
    page, found = (Path(__file__).parents[1] / "docs" / "capacity.md").read_text(), measured()
    for used in found.cpu_seconds.values():
        assert f"| {1000 * used:.2f} |" in page
    for size in (*found.topic_bytes.values(), *found.store_bytes.values()):
        assert f"| {size:,.0f} |" in page
