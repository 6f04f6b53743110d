"""`aegis capacity`: what it takes to carry so many documents a day."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.capacity import MEASURED, Choices, Load, Measured, Plan, Prices, measured, plan, service_seconds
from deploy.capacity_day import MAX_DOCUMENTS, Day, Loss, simulate
from deploy.commands.output import AsJson, out, print_json, reported, table
from schemas.records import STAGES


def capacity(
    documents_per_day: Annotated[float, typer.Option(min=1, help="Documents a day.")] = 1_000_000,
    words: Annotated[float, typer.Option(min=1, help="Words of a document.")] = 500,
    peak: Annotated[float, typer.Option(min=1, max=20, help="The busiest moment to the mean.")] = 3,
    days: Annotated[float, typer.Option(min=1, help="Days of documents that log and stores hold.")] = 30,
    replication: Annotated[int, typer.Option(min=1, help="Replicas of every topic.")] = 3,
    faster: Annotated[float, typer.Option(min=0.01, help="A core there to one where it was measured.")] = 1,
    core_hour: Annotated[float, typer.Option(min=0, help="Price of a core for an hour (assumed).")] = 0.04,
    memory_gib_hour: Annotated[
        float, typer.Option(min=0, help="Price of a GiB of memory for an hour (assumed).")
    ] = 0.005,
    disk_gib_month: Annotated[float, typer.Option(min=0, help="Price of a GiB of disk for a month (assumed).")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the simulated day.")] = 0,
    figures: Annotated[Path, typer.Option("--measured", help="A report of `make measure-costs`.")] = MEASURED,
    as_json: AsJson = False,
) -> None:
    """Workers, partitions, broker, stores and cost for a load, from measured costs; and a simulated day of it."""
    with reported():
        found = measured(figures)
        load = Load(documents_per_day=documents_per_day, words=words, peak=peak, days=days)
        choices = Choices(replication=replication, faster=faster)
        prices = Prices(core_hour=core_hour, memory_gib_hour=memory_gib_hour, disk_gib_month=disk_gib_month)
        needed = plan(found, load, choices, prices)
        day = _day(found, load, choices, needed, seed)
    if as_json:
        given = {"load": load, "choices": choices, "prices": prices}
        print_json({**given, "plan": needed, "day": day, "measured": found})
        return
    out.print(_stages(needed, day))
    out.print(_totals(needed, day))
    out.print(f"Measured on {found.machine} ({found.at}); prices are assumptions. docs/capacity.md says what is in it.")


def _day(found: Measured, load: Load, choices: Choices, needed: Plan, seed: int) -> Day | None:
    if load.documents_per_day > MAX_DOCUMENTS:
        return None
    largest = max(STAGES, key=lambda stage: needed.stages[stage].workers)
    return simulate(
        load.documents_per_day,
        {stage: service_seconds(found, stage, load.words, choices) for stage in STAGES},
        {stage: needed.stages[stage].workers for stage in STAGES},
        partitions=needed.partitions,
        peak=load.peak,
        loss=Loss(largest),
        seed=seed,
    )


def _stages(needed: Plan, day: Day | None) -> object:
    rows = [
        (
            stage,
            one.service_seconds,
            one.cores_at_peak,
            one.workers,
            f"{one.busiest_at_peak:.0%}",
            *((day.stage_p95[stage], day.stage_max[stage]) if day else (None, None)),
        )
        for stage, one in needed.stages.items()
    ]
    columns = ["stage", "CPU s/document", "cores at peak", "workers", "busiest then", "lag p95, s", "lag max, s"]
    return table(columns, rows)


def _totals(needed: Plan, day: Day | None) -> object:
    parts = {"": needed.model_dump(exclude={"stages", "broker", "stores"})}
    parts |= {"broker: ": needed.broker.model_dump(), "stores: ": needed.stores.model_dump()}
    rows = [
        (f"{part}{name.replace('_', ' ')}", f"{value:,}")
        for part, figures in parts.items()
        for name, value in figures.items()
    ]
    if day:
        rows += [
            (
                "simulated: searchable after, p50 / p95 / max s",
                f"{day.searchable_p50} / {day.searchable_p95} / {day.searchable_max}",
            ),
            ("simulated: in both stores after, p95 / max s", f"{day.indexed_p95} / {day.indexed_max}"),
            ("simulated: a worker lost at the peak, caught up after s", f"{day.caught_up_after}"),
        ]
    return table(["", ""], rows)
