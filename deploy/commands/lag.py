"""`aegis lag`: how far behind each stage is."""

import time
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.commands.output import AsJson, connected, out, print_json, seconds, table
from streams.lag import GroupLag, LagMeter

_COLOURS = {"OK": "green", "WARN": "yellow", "STALL": "red", "REWIND": "red", "STOP": "red", "UNKNOWN": "dim"}


def lag(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until interrupted.")] = False,
    retries: Annotated[bool, typer.Option("--retries", help="Also the groups that move due retries.")] = False,
    by_partition: Annotated[bool, typer.Option("--partitions", help="A line per partition.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two measurements.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Lag per consumer group: records, seconds, time to drain, verdict (STALL needs --watch: 15 seconds of it)."""
    with connected() as (settings, running):
        meter = LagMeter(running.bootstrap_servers, generation=settings.generation)
        meter.measure(retries=retries)  # the first of two: rates and verdicts need them
        time.sleep(interval)
        groups = meter.measure(retries=retries)
        if as_json:
            print_json(groups)
            return
        if not watch:
            out.print(_table(groups, by_partition=by_partition))
            return
        with Live(_table(groups, by_partition=by_partition), console=out) as live:
            while True:
                time.sleep(interval)
                live.update(_table(meter.measure(retries=retries), by_partition=by_partition))


def _table(groups: list[GroupLag], *, by_partition: bool) -> Table:
    if by_partition:
        partitions = [part for group in groups for part in group.partitions]
        rows = [(p.group, p.topic, p.partition, p.committed, p.end, p.records, seconds(p.seconds)) for p in partitions]
        return table(["group", "topic", "partition", "committed", "end", "lag", "behind"], rows)
    return table(
        ["group", "topic", "lag", "behind", "rate", "drained in", "members", "verdict"],
        [
            (
                group.group,
                group.topic,
                group.records if group.records is not None else "unknown",
                seconds(group.seconds),
                "–" if group.records_per_second is None else f"{group.records_per_second:.1f}/s",
                "–" if group.eta_seconds is None else seconds(group.eta_seconds),
                group.members,
                Text(group.verdict, style=_COLOURS[group.verdict]),
            )
            for group in groups
        ],
    )
