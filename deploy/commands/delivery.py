"""`aegis smoke` and `aegis rollout`: does it work, and may the next version take over?"""

import signal
import sys
from typing import Annotated

import typer

from deploy.commands.output import AsJson, connected, err, fail, load_settings, out, print_json, reported, table
from deploy.delivery import rollout
from deploy.delivery.kubernetes import ApiTracks, LiveAlreadyError, Release, StageWorkers
from deploy.delivery.prometheus import Prometheus
from deploy.delivery.smoke import Smoke
from deploy.delivery.smoke import smoke as smoke_test

app = typer.Typer(no_args_is_help=True, help="Bring a version into a cluster, and back if it is not well.")

Version = Annotated[str, typer.Argument(help="The image's tag.")]
Url = Annotated[str, typer.Option(help="Where users reach the API.")]
Name = Annotated[str, typer.Option("--release", help="The Helm release.")]
Namespace = Annotated[str, typer.Option(help="Its namespace.")]
Within = Annotated[float, typer.Option(min=1, help="Seconds that each step of a smoke test may take.")]
_PLAN = rollout.Plan()


def smoke(
    url: Annotated[str | None, typer.Option(help="The API; by default that of the settings.")] = None,
    within: Within = 60.0,
    as_json: AsJson = False,
) -> None:
    """Publish a document, wait, search, ask, delete, look at health and metrics; exit status 1 if a step fails."""
    if url is None:
        with connected() as (_, running):
            url = running.api_url
    seen = _smoke(url, within)
    if as_json:
        print_json(vars(seen))
    else:
        out.print(table(["step", "seconds"], [(name, f"{seconds:.2f}") for name, seconds in seen.seconds.items()]))
    if seen.failed:
        fail(f"{seen.failed}: {seen.problem}")


@app.command()
def api(
    version: Version,
    url: Url,
    release: Name = "aegis",
    namespace: Namespace = "default",
    steps: Annotated[str, typer.Option(help="Percentages of the requests; 100 alone is blue-green.")] = "10,50,100",
    prometheus: Annotated[str | None, typer.Option(help="Judges each step; without it smoke tests alone do.")] = None,
    selector: Annotated[str, typer.Option(help='More labels for Prometheus, as namespace="aegis".')] = "",
    hold: Annotated[float, typer.Option(min=1, help="Seconds at each step.")] = _PLAN.hold,
    min_requests: Annotated[int, typer.Option(min=1, help="Fewer at a step are no verdict.")] = _PLAN.min_requests,
    max_errors: Annotated[float, typer.Option(min=0, max=1, help="Share of 5xx.")] = _PLAN.max_errors,
    max_p95: Annotated[float, typer.Option(min=0, help="Seconds that 95 % stay below.")] = _PLAN.max_p95,
    within: Within = 60.0,
) -> None:
    """Bring the API to a version: beside the live one, smoke-tested, by percentages, and back if anything fails."""
    _interruptible()
    with reported():
        plan = rollout.Plan(
            steps=[int(step) for step in steps.split(",")],
            hold=hold,
            min_requests=min_requests,
            max_errors=max_errors,
            max_p95=max_p95,
        )
        try:
            tracks = ApiTracks.of(Release(release, namespace, url), version)
        except LiveAlreadyError as error:
            _say(str(error))
            return
        observe = Prometheus(prometheus, selector=selector).observed if prometheus else None
        rollout.roll_out(
            tracks, plan, smoke=lambda address: _smoke(address, within).require(), observe=observe, say=_say
        )
    out.print(f"{version} has all requests; {tracks.old} stands by until `aegis rollout finish`.", markup=False)


@app.command()
def workers(
    version: Version,
    url: Url,
    release: Name = "aegis",
    namespace: Namespace = "default",
    back: Annotated[bool, typer.Option("--back", help="It is a version of before: first stage first.")] = False,
    within: Within = 60.0,
) -> None:
    """Bring the workers to a version, last stage first, with a smoke test after each; back if anything fails."""
    _interruptible()
    with reported():
        stages = StageWorkers(Release(release, namespace, url))
        rollout.roll_workers(stages, version, smoke=lambda: _smoke(url, within).require(), say=_say, back=back)


@app.command()
def finish(release: Name = "aegis", namespace: Namespace = "default") -> None:
    """Give the live version of the API all requests and stop the other one, whatever a rollout left."""
    with reported():
        Release(release, namespace, "").retire()


def _smoke(url: str, within: float) -> Smoke:
    key = load_settings().access.key
    return smoke_test(url, key=key.get_secret_value() if key else None, within=within)


def _say(line: str) -> None:
    err.print(line, markup=False)


def _interruptible() -> None:
    """A job that is cancelled takes its version back before it ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
