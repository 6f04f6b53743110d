"""`aegis reindex`: another index while this one answers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.documents import progress_bar
from deploy.commands.output import AsJson, connected, err, fail, out, print_json
from deploy.logs import configure_logs
from schemas.settings import Chunking, Settings

if TYPE_CHECKING:
    from deploy.reindexing import Plan, Shown


def reindex(
    model: Annotated[
        str | None, typer.Option(help="Embed with this model: a packaged one's name, or a folder.")
    ] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Tokens of the embedding model per chunk.")] = None,
    chunk_overlap: Annotated[int | None, typer.Option(help="Tokens that neighbouring chunks share.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also if neither model nor chunking changes.")] = False,
    without_failed: Annotated[
        bool, typer.Option("--without-failed", help="Switch without the documents that the new index's stages give up.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make another index from every document while this one answers, switch when it is complete, drop the old.

    What is not named stays as it is. Interrupted, the same command goes on where it was.
    """
    with connected() as (live, running):
        if live.vectors.url or live.graph.url or live.kafka.bootstrap_servers:
            fail(
                "`aegis reindex` works on the system of `aegis up` with the stores and broker that come with it; "
                "docs/operations.md says how it is done on servers"
            )
        wanted = _wanted(live, model, chunk_size, chunk_overlap)
        if not again and (wanted.embedding.model, wanted.chunking) == (live.embedding.model, live.chunking):
            fail("the index is made with this model and chunking already; --again makes it anew all the same")
        from deploy import reindexing

        if dry_run:
            _print_plan(reindexing.plan(live, wanted, running.bootstrap_servers), as_json=as_json)
            return
        with reindexing.alone(live.data_dir), _shown() as shown:
            configure_logs(live.model_copy(update={"log_level": "warning"}))
            os.nice(live.local.worker_nice)  # not the whole session (step_back): it is a person's
            report = reindexing.reindex(
                live, wanted, running.bootstrap_servers, without_failed=without_failed, shown=shown
            )
    if as_json:
        print_json(report)
    else:
        failed = f"{report.failed:,} in the dead letters, " if report.failed else ""
        out.print(
            f"Generation {report.generation} answers: {report.documents:,} documents, {failed}made in "
            f"{report.build_seconds:.1f} s, switched in {report.switch_seconds:.1f} s."
        )


@contextmanager
def _shown() -> Iterator["Shown"]:
    """A bar on standard error; where that is no terminal, lines."""
    from deploy.reindexing import Shown

    bars = progress_bar("documents")
    bars.disable = not err.is_terminal
    with bars:
        bar = bars.add_task("Reindexing", total=None)
        last = (-1, -1)

        def progress(done: int, total: int) -> None:
            nonlocal last
            bars.update(bar, completed=done, total=total)
            if not err.is_terminal and (done, total) != last:
                err.print(f"{done:,} of {total:,} documents", markup=False)
            last = (done, total)

        yield Shown(say=lambda line: err.print(line, markup=False), progress=progress)


def _print_plan(plan: "Plan", *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    out.print(f"Generation {plan.generation} would be made of {plan.documents:,} documents:")
    for name, now in plan.now:
        if now != (then := getattr(plan.then, name)):
            out.print(f"  {name}: {now or 'g1'} → {then}", markup=False)


def _wanted(live: Settings, model: str | None, max_tokens: int | None, overlap_tokens: int | None) -> Settings:
    """The live settings with what was named.

    Raises:
        ValueError: A number is out of bounds, or there is no such model.
    """
    from processors.model_folder import model_folder

    named = {"max_tokens": max_tokens, "overlap_tokens": overlap_tokens}
    given = {name: value for name, value in named.items() if value is not None}
    chunking = Chunking.model_validate(live.chunking.model_dump() | given)
    if chunking.overlap_tokens >= chunking.max_tokens:
        raise ValueError(f"an overlap of {chunking.overlap_tokens} tokens needs chunks of more than that")
    if model is not None and Path(model).is_dir():
        model = str(Path(model).resolve())  # the node may have been started elsewhere
    embedding = live.embedding.model_copy(update={"model": model or live.embedding.model})
    model_folder(embedding.model)
    return live.model_copy(update={"embedding": embedding, "chunking": chunking})
