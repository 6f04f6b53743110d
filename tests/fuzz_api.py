"""Requests that the OpenAPI document allows, and some that it does not, against a served API (`make fuzz`)."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from processors.routing.ledger import SqliteLedger
from processors.routing.overview import overview
from processors.routing.router import Router
from schemas.records import Vector
from schemas.settings import Llm
from tests.answer_shelf import shelved
from tests.api_server import MemoryReranker, Stack, serving
from tests.ollama_server import ollama_server

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
CONFIG = Path(__file__).with_name("schemathesis.toml")
FOLLOWING = "/api/v1/documents/{document_id}/events"  # waits for documents that nobody publishes


def fuzz(folder: Path, *, examples: int, phases: str, seconds: int) -> tuple[int, str]:
    """Exit status and report: 0 if every answer is one that the document announces, and none is a server's error.

    Args:
        folder: Where the example database and caches of the run may lie.
        examples: Random requests per route, with and without mistakes.
        phases: Schemathesis' phases, separated by commas.
        seconds: The run is killed after so long.
    """
    with _language_model(folder) as router, serving(change=partial(_complete, router)) as stack:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
                *("run", f"http://127.0.0.1:{stack.port}/openapi.json"),
                *("--checks", ",".join(CHECKS), "--exclude-path", FOLLOWING, "--phases", phases),
                *("--max-examples", str(examples), "--seed", "7", "--no-color"),
                *("--suppress-health-check", "all", "--request-timeout", "60", "--generation-database", "none"),
            ],
            cwd=folder,
            env=os.environ | {"NO_PROXY": "*"},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        return done.returncode, done.stdout + done.stderr


@dataclass
class _ByLength(MemoryReranker):
    """Takes any text."""

    def rerank(self, query: str, passages: Sequence[str]) -> Vector:
        return np.array([len(text) for text in passages], np.float32)


@contextmanager
def _language_model(folder: Path) -> Iterator[Router]:
    with ollama_server(chat=lambda turns: "Every employee has 30 days of leave per year [1].") as server:
        llm = Llm(url=server.url, model="m", protocol="ollama")
        with closing(Router(llm, task="answers", ledger=SqliteLedger(folder / "llm.sqlite"))) as router:
            yield router


def _complete(router: Router, stack: Stack) -> None:
    shelved(stack)
    stack.reranker = _ByLength()
    stack.chat, stack.language_models = router, partial(overview, router)
    stack.status.report("handbook/leave", 1767225600000, index_vectors="indexed", index_graph="indexed")  # `wait_for`


def main() -> int:
    """Fuzz for long; the exit status says whether something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--report", type=Path, default=Path("build/fuzz.txt"))
    options = parser.parse_args()
    options.report.parent.mkdir(parents=True, exist_ok=True)
    status, report = fuzz(
        options.report.parent, examples=options.examples, phases="examples,coverage,fuzzing", seconds=7200
    )
    options.report.write_text(report)
    sys.stdout.write(report)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
