"""The README's first command, on the shipped corpus, as a new user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.commands.demo import CORPUS, QUESTIONS

pytestmark = pytest.mark.integration


def test_the_demo_keeps_its_promises_and_finds_the_answers(tmp_path: Path) -> None:
    questions = json.loads(QUESTIONS.read_text())
    asked = [option for one in questions for option in ("--question", one["question"])]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "demo", "--report", str(report), *asked],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(report.read_text())
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert seen["published"] == len(files)
    assert seen["states"] == {"dead-lettered": 1, "indexed": len(files) - 1}
    assert [letter["document_id"] for letter in seen["dead_letters"]] == ["poison/damaged-report.pdf"]
    assert set(seen["lag"].values()) == {0}
    first_two = [[hit["document_id"] for hit in one["hits"]] for one in seen["answers"]]
    found = sum(one["document"] in hits for one, hits in zip(questions, first_two, strict=True))
    assert found >= len(questions) - 1, list(zip([one["document"] for one in questions], first_two, strict=True))
