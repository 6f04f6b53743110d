"""`helm` and `kubectl` of a release that is a file: each change adds what it sets, and is noted."""

import json
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(os.environ["CLUSTER"])
NEVER = "\n"


def main() -> None:
    program, words = Path(sys.argv[0]).name, sys.argv[1:]
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps([program, *words]) + "\n")
    if program == "helm":
        _helm(words[2:])
    elif "port-forward" in words:
        sys.stdout.write(f"Forwarding from 127.0.0.1:{os.environ['CANDIDATE']} -> 8321\n")
        sys.stdout.flush()
        signal.pause()
    elif "get" in words:
        sys.stdout.write("7")


def _helm(words: list[str]) -> None:
    changes = sorted(FOLDER.glob("sets-*"))
    sets = changes[-1].read_text().splitlines()
    if words[0] == "get":
        json.dump(_values(sets), sys.stdout)
    elif os.environ.get("SLOW", NEVER) in " ".join(words):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("Release aegis has been cancelled."))
        (FOLDER / "waiting").touch()
        signal.pause()
    elif os.environ.get("REFUSED", NEVER) in " ".join(words):
        sys.exit("timed out waiting for the condition")
    else:
        given = [f"{option}={value}" for option, value in pairwise(words) if "--set" in option]
        (FOLDER / f"sets-{len(changes):02}").write_text("\n".join([*sets, *given]))


def _values(sets: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(Path(os.environ["CHART_VALUES"]).read_text())
    for one in sets:
        option, path, value = one.split("=", 2)
        *parents, last = path.split(".")
        place = values
        for name in parents:
            place = place[name]
        place[last] = value if option == "--set-string" else yaml.safe_load(value)
    return values


if __name__ == "__main__":
    main()
