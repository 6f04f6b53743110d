"""A run of the extraction benchmark as tables, as Markdown and as plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy.commands.output import table

Run = Mapping[str, Any]
Rows = tuple[Sequence[str], Sequence[Sequence[object]]]

_SPEED = {
    "documents/min": "documents_per_minute",
    "words/s": "words_per_second",
    "CPU s": "cpu_seconds",
    "yardsticks": "yardsticks",
    "peak MB": "peak_mb",
}
_COUNTS = {
    "load s": "load_seconds",
    "chunks": "chunks",
    "mentions": "mentions",
    "entities": "entities",
    "typed": "typed_relations",
    "untyped": "untyped_relations",
}


def tables(run: Run) -> list[Table]:
    """For a terminal."""
    return [table(columns, rows) for columns, rows in _parts(run)]


def markdown(run: Run) -> str:
    """For a page."""
    lines = [f"{name}: {value}  " for name, value in {**run["condition"], **run["machine"], **run["texts"]}.items()]
    for columns, rows in _parts(run):
        lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(run: Run, path: Path) -> None:
    """Time over documents, and where it goes."""
    import matplotlib.pyplot as plt

    speed = run["speed"]
    picture, (over_words, of_phases) = plt.subplots(1, 2, figsize=(12, 4.5))
    for pipeline, of in run["growth"].items():
        sizes = [speed[f"{pipeline}, {size}"] for size in ("medium", "large")]
        alone = speed[f"{pipeline}, small"]
        documents = [1, *(one["documents"] for one in sizes)]
        seconds = [alone["seconds"] / alone["documents"], *(one["seconds"] for one in sizes)]
        over_words.loglog(documents, seconds, marker="o", label=f"{pipeline}: exponent {of['exponent']}")
    over_words.set(xlabel="documents of about 500 words", ylabel="seconds")
    over_words.legend()
    names = [name for name in speed if not name.startswith("rules")][::-1]
    left = [0.0] * len(names)
    for phase in dict.fromkeys(phase for name in names for phase in speed[name]["phases"]):
        widths = [60 * speed[name]["phases"].get(phase, 0) / speed[name]["documents"] for name in names]
        of_phases.barh(names, widths, left=left, label=phase)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    of_phases.set(xlabel="seconds for 60 documents")
    of_phases.legend()
    picture.tight_layout()
    picture.savefig(path, dpi=110)


def _parts(run: Run) -> list[Rows]:
    speed = run["speed"]
    phases = list(dict.fromkeys(phase for one in speed.values() for phase in one["phases"]))
    return [
        (("pipeline, work", *_SPEED), [(name, *map(one.get, _SPEED.values())) for name, one in speed.items()]),
        (("pipeline, work", *_COUNTS), [(name, *map(one.get, _COUNTS.values())) for name, one in speed.items()]),
        (("seconds a document", *phases), [(name, *_a_document(one, phases)) for name, one in speed.items()]),
        (("growth of time over words", "exponent"), [(name, of["exponent"]) for name, of in run["growth"].items()]),
        (
            ("quality", "precision", "recall", "f1", "wanted"),
            [(name, *scores(of), of["wanted"]) for name, of in run["quality"].items()],
        ),
    ]


def _a_document(one: Mapping[str, Any], phases: Sequence[str]) -> list[str]:
    return [f"{one['phases'].get(phase, 0) / one['documents']:.4f}" for phase in phases]


def scores(figures: Mapping[str, Any]) -> list[str]:
    """Precision, recall and F1, each with its interval."""
    return [f"{figures[name]:.3f} ({low:.3f}-{high:.3f})" for name, (low, high) in figures["intervals"].items()]
