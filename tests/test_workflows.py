"""The workflows: what they run is in this repository, they may do little, and what they run is pinned."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.cli import app
from tests.programs import go_program

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"
_PINNED = re.compile(r"actions/[\w-]+@[0-9a-f]{40}")


def workflow(path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(path.read_text())
    return parsed


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.timeout(1800)  # the first time it is built
def test_actionlint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [go_program("actionlint", ACTIONLINT), *WORKFLOWS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_there_is_one_for_each_step_of_a_change() -> None:
    assert {path.stem for path in WORKFLOWS} == {"test", "security", "staging", "production", "rollback"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_one_of_the_repository(path: Path) -> None:
    for command in (step["run"] for step in steps(path) if "run" in step):
        assert "${{" not in command, "a context in a command is code of whoever wrote it"
        first, *rest = shlex.split(command)
        if first == ".ci/cluster":
            assert_runs(first)
            first, *rest = rest
        if first == "make":
            assert rest and set(rest) <= TARGETS, command
        elif first == ".venv/bin/aegis":
            assert_is_understood(rest)
        else:
            assert_runs(first)


def assert_runs(script: str) -> None:
    assert script.startswith(".ci/")
    assert (ROOT / script).stat().st_mode & 0o100, script


def assert_is_understood(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, *words = command.commands[words[0]], *words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_it_may_read_and_no_more_and_ends(path: Path) -> None:
    parsed = workflow(path)
    assert parsed["permissions"] == {"contents": "read"}
    for name, job in parsed["jobs"].items():
        allowed = {"contents": "read", "packages": "write"} if (path.stem, name) == ("staging", "image") else None
        assert job.get("permissions") == allowed
        assert job["timeout-minutes"] <= 180
    for step in steps(path):
        if "uses" in step:
            assert _PINNED.fullmatch(step["uses"])
            assert "checkout" not in step["uses"] or step["with"]["persist-credentials"] is False


def test_only_what_is_brought_to_a_cluster_knows_its_secrets() -> None:
    for path in WORKFLOWS:
        for name, job in workflow(path)["jobs"].items():
            secrets = set(re.findall(r"secrets\.(\w+)", yaml.safe_dump(job)))
            if "environment" in job:
                assert secrets == {"CLUSTER_ACCESS", "AEGIS_KEY"}, (path, name)
            else:
                assert secrets <= {"REGISTRY_TOKEN"}, (path, name)


def test_a_command_has_its_cluster_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "CLUSTER_ACCESS": "the cluster"}
    script = 'cat "$KUBECONFIG"; stat --format=%a "$KUBECONFIG"; echo "${CLUSTER_ACCESS:-gone}"; exit 3'
    done = subprocess.run(
        [ROOT / ".ci" / "cluster", "sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split("\n")) == (3, ["the cluster", "600", "gone", ""])
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_job_waits_for_what_its_command_takes_back(tmp_path: Path) -> None:
    script = f"trap 'sleep 0.3; touch {tmp_path}/taken-back; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "CLUSTER_ACCESS": "x"}
    job = subprocess.Popen(
        [ROOT / ".ci" / "cluster", "sh", "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    job.stdout.readline()
    job.terminate()
    assert job.wait(timeout=60) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["taken-back"]


def test_an_image_that_nothing_scanned_does_not_pass() -> None:
    done = subprocess.run(
        ["make", "scan", "SCANNER=no-such-scanner --strictly"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "NOT SCANNED: no-such-scanner" in done.stdout
    passed = subprocess.run(["make", "scan", "SCANNER=test x:1 =", "IMAGE=x:1"], cwd=ROOT, check=False)
    assert passed.returncode == 0
