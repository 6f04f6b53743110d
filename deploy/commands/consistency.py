"""`aegis check --consistency` and `--repair`."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NoReturn

import typer
from rich.markup import escape

from api.ports import Consistency
from deploy.commands.output import err, fail, load_settings, out, print_json, reported
from deploy.consistency import find_if_running, opened_consistency
from schemas.consistency import Difference, Remedy, Summary
from streams.lag import LagMeter
from streams.republish import Wanted, republish

LIMIT = 1000
_ROUNDS = 3  # a sweep may have to wait for what a republish leaves behind
_SETTLE_SECONDS = 3600.0
_WHAT_TO_DO: dict[Remedy, str] = {
    "wait": "in flight: wait",
    "replay": "aegis dlq list --document",
    "republish": "--repair publishes it again",
    "erase-and-republish": "--repair deletes it and publishes it again",
    "sweep": "--repair removes it",
}


def check_consistency(*, repair: bool, as_json: bool) -> NoReturn:
    """Compare, repair if asked to, print, and exit with status 1 if anything differs."""
    settings = load_settings()
    with reported():
        running = find_if_running(settings)
        if repair and running is None:
            fail("--repair publishes documents again, so the system has to run; start it with `aegis up`")
        with opened_consistency(settings, running) as consistency:
            differences, summary = _checked(consistency)
            done: dict[str, str] = {}
            servers = running.bootstrap_servers if running else ""
            for _ in range(_ROUNDS if repair and running else 0):
                if not (mendable := [one for one in differences if one.remedy not in ("wait", "replay")]):
                    break
                done |= _repaired(consistency, servers, settings.generation, mendable)
                differences, summary = _checked(consistency)
    _print(differences, summary, done, as_json=as_json)
    raise typer.Exit(1 if summary.differences else 0)


def _checked(consistency: Consistency) -> tuple[list[Difference], Summary]:
    differences: list[Difference] = []
    with err.status("Comparing") as shown:
        for line in consistency.check(limit=LIMIT):
            if isinstance(line, Difference):
                differences.append(line)
            elif line.done:
                return differences, line
            else:
                shown.update(f"Comparing: {line.documents} documents, {line.chunks} chunks in the graph")
    fail("the comparison ended early; the node's log says why")


def _repaired(
    consistency: Consistency, bootstrap_servers: str, generation: str, differences: Sequence[Difference]
) -> dict[str, str]:
    """What was done, by document; on return every stage has read it."""
    with err.status("Repairing"):
        swept = consistency.sweep() if any(one.remedy == "sweep" for one in differences) else 0
        done = republish(bootstrap_servers, _wanted(differences))
        if left := LagMeter(bootstrap_servers, generation=generation).wait_until_read(timeout=_SETTLE_SECONDS):
            fail(f"{left} records are still unread after an hour; see `aegis lag`, then check again")
    return done | ({"the graph": f"{swept} nodes and edges removed"} if swept else {})


def _wanted(differences: Sequence[Difference]) -> dict[str, Wanted]:
    by_document: defaultdict[str, list[Difference]] = defaultdict(list)
    for one in differences:
        if one.document_id is not None:
            by_document[one.document_id].append(one)
    return {
        document_id: Wanted(
            erase=any(one.remedy == "erase-and-republish" for one in found),
            held_version=max(one.held_version for one in found),
            may_delete=any(one.kind != "status-differs" for one in found),
        )
        for document_id, found in by_document.items()
    }


def _print(differences: Sequence[Difference], summary: Summary, done: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json({"summary": summary, "differences": differences, "repaired": done})
        return
    for name, what in done.items():
        out.print(f"{escape(name)}: {what}")
    for one in differences:
        out.print(_line(one), markup=False, soft_wrap=True)
    out.print(
        f"{summary.documents} documents, {summary.points} points, {summary.chunks} chunks, {summary.entities} "
        f"entities, {summary.mentions} mentions and {summary.relations} relations compared: "
        f"{summary.differences} differences, {summary.in_flight} in flight."
        + ("" if summary.status_read else " Nothing runs, so neither status nor lag were read.")
        + (f" Stopped at {LIMIT}; there may be more." if summary.is_cut else "")
    )


def _line(one: Difference) -> str:
    sides = {"vectors": one.vectors, "graph": one.graph, "status": one.status}
    said = "; ".join(f"{side}: {text}" for side, text in sides.items() if text)
    return " | ".join(filter(None, (one.kind, one.document_id, said, _WHAT_TO_DO[one.remedy])))
