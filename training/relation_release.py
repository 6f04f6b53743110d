r"""Make what ships of trained weights: confidences calibrated, a threshold per type, scores in the model card.

    python -m training.relation_release --data ../shared/data --weights build/relations \
        --output processors/relations/model --card training/RELATIONS_CARD.md

Of the texts that nothing was trained on, every other one decides calibration and thresholds; the scores at the
thresholds are those of the texts between them. A type that is not precise enough on the former is never said.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from processors.bert import sha256_of
from processors.model_folder import model_folder
from processors.ner import NamedEntityRecogniser
from processors.relations.classifier import FORMAT, WEIGHTS, ClassifiedRelations
from processors.relations.pairs import TYPES, Placed
from processors.sentences import sentences
from schemas.ids import entity_id, normalised_name
from schemas.records import Mention, Relation
from training.relation_corpora import (
    TRAINING_DOCUMENTS,
    TRAINING_FOLDS,
    Annotated,
    annotated_passages,
    documents,
    windows,
)
from training.relation_scores import Judged, Said, judged, judged_by_place, of_type, precision_recall

BASE = "all-MiniLM-L6-v2"
TEMPLATE = Path(__file__).parent / "relations_card.template.md"
PRECISION = 0.85
"""What the thresholds are chosen for: some more than what is promised."""
_LEAST_RIGHT = 5  # of a type, on the texts that decide: below it nothing is known of its precision
_LEAST_CONFIDENCE = 0.5


def release(data: Path, weights: Path, output: Path, card: Path) -> None:
    """Write ``relations.safetensors`` and ``config.json`` to the folder ``output``, and the card."""
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights / WEIGHTS, output / WEIGHTS)
    _write_config(output, (1.0, 0.0), {})
    raw = ClassifiedRelations(output)
    texts = held_out(data, raw)
    found = {name: judged(raw, of) for name, of in texts.items()}
    deciding = [one for name, of in found.items() if name.endswith("deciding") for one in of.said if one.is_judged]
    calibration = calibrated(deciding)
    scores = thresholds(deciding, calibration)
    scale, shift = calibration
    confidences = {type_: float(_sigmoid(np.array(scale * at + shift))) for type_, at in scores.items()}
    _write_config(output, calibration, {type_: math.floor(1000 * at) / 1000 for type_, at in confidences.items()})
    reported = {name: of for name, of in found.items() if name.endswith("scored")}
    scored = texts["Re-DocRED, scored"]
    mentions = _our_mentions(scored)
    places = [[Placed(one.start, one.end, one.type, entity_id(one.type, one.name)) for one in of] for of in mentions]
    reported["Re-DocRED with our own mentions"] = judged_by_place(raw, scored, places)
    share = _share(ClassifiedRelations(output), scored, mentions)
    recipe = (weights / "recipe.json").read_text(encoding="utf-8").strip()
    card.write_text(_card(reported, scores, share=share, recipe=recipe), encoding="utf-8")


def held_out(data: Path, classifier: ClassifiedRelations) -> dict[str, list[Annotated]]:
    """Texts that nothing was trained on: those that decide, and those that are scored."""
    of_passages = annotated_passages(data, [fold for fold in (1, 2, 3, 4) if fold not in TRAINING_FOLDS])
    return {
        "Re-DocRED, deciding": held_out_windows(data, classifier, half=0),
        "Re-DocRED, scored": held_out_windows(data, classifier, half=1),
        "KnowledgeNet, deciding": of_passages[::2],
        "KnowledgeNet, scored": of_passages[1::2],
    }


def held_out_windows(data: Path, classifier: ClassifiedRelations, *, half: int) -> list[Annotated]:
    """Of Re-DocRED, those of every other document that nothing was trained on."""
    chosen = documents(data)[TRAINING_DOCUMENTS:][half::2]
    return [window for document in chosen for window in windows(document, classifier.tokenizer)]


def calibrated(said: Sequence[Said]) -> tuple[float, float]:
    """Platt 1999: scale and shift of the scores under which what is right is most probable, by Newton's method."""
    scores = np.array([(one.score, 1.0) for one in said])
    is_right = np.array([one.is_right for one in said], float)
    weights = np.array([1.0, 0.0])
    for _ in range(30):
        probabilities = _sigmoid(scores @ weights)
        hessian = (scores * (probabilities * (1 - probabilities))[:, None]).T @ scores + 1e-6 * np.eye(2)
        weights += np.linalg.solve(hessian, scores.T @ (is_right - probabilities))
    return round(float(weights[0]), 4), round(float(weights[1]), 4)


def thresholds(said: Sequence[Said], calibration: tuple[float, float]) -> dict[str, float]:
    """For each type that can be precise enough, the lowest score from which on it is."""
    scale, shift = calibration
    least = (math.log(_LEAST_CONFIDENCE / (1 - _LEAST_CONFIDENCE)) - shift) / scale
    chosen = {}
    for type_ in TYPES:
        surest = sorted((one for one in said if one.fact[2] == type_), key=lambda one: -one.score)
        right = np.cumsum([one.is_right for one in surest])
        precision = (right + 0.5) / np.arange(2, len(surest) + 2)  # as if one more were half right
        enough = np.nonzero((precision >= PRECISION) & (right >= _LEAST_RIGHT))[0]
        if len(enough):
            chosen[type_] = max(least, surest[enough[-1]].score)
    return chosen


def _sigmoid(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-scores)), np.float64)


def _write_config(output: Path, calibration: tuple[float, float], thresholds_: Mapping[str, float]) -> None:
    config = {
        "format": FORMAT,
        "name": "aegis-relations-1",
        "types": TYPES,
        "base": BASE,
        "base_sha256": sha256_of(model_folder(BASE).path / "model.safetensors"),
        "sha256": sha256_of(output / WEIGHTS),
        "calibration": calibration,
        "thresholds": thresholds_,
    }
    (output / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _our_mentions(texts: Sequence[Annotated]) -> list[list[Mention]]:
    recognised = NamedEntityRecogniser().recognise([text.text for text in texts])
    return [
        [
            Mention(start=span.start, end=span.end, text=surface, name=normalised_name(surface), type=span.type)
            for span in spans
            for surface in [text.text[span.start : span.end]]
        ]
        for text, spans in zip(texts, recognised, strict=True)
    ]


def _share(classifier: ClassifiedRelations, texts: Sequence[Annotated], mentions: Sequence[Sequence[Mention]]) -> str:
    """Of how many sentences something is said, and how fast."""
    begun = time.monotonic()
    relations = classifier.relations([text.text for text in texts], mentions)
    seconds = time.monotonic() - begun
    spoken = spoken_of(texts, relations)
    return (
        f"{sum(map(len, relations))} relations speak of {sum(spoken)} of {len(spoken)} sentences "
        f"({sum(spoken) / len(spoken):.0%}) in {len(texts)} texts, {len(texts) / seconds:.1f} texts/s"
    )


def spoken_of(texts: Sequence[Annotated], relations: Sequence[Sequence[Relation]]) -> list[bool]:
    """Of each sentence of the texts, whether it is the evidence of a relation, or a part of it."""
    return [
        any(" ".join(text.text[start:end].split()) in one.evidence for one in of)
        for text, of in zip(texts, relations, strict=True)
        for start, end in sentences(text.text)
        if text.text[start:end].strip()
    ]


def _card(found: Mapping[str, Judged], scores: Mapping[str, float], *, share: str, recipe: str) -> str:
    total = [_row(name, of.above(scores), of) for name, of in found.items()]
    by_type = [
        _row(f"{name}: {type_}", [one for one in of.above(scores) if one.fact[2] == type_], of, type_)
        for name, of in found.items()
        for type_ in TYPES
        if type_ in scores and any(of_type(type_, of.wanted))
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        total="\n".join(total),
        by_type="\n".join(by_type),
        silent=", ".join(type_ for type_ in TYPES if type_ not in scores) or "none",
        share=share,
        recipe=recipe,
    )


def _row(name: str, said: Sequence[Said], of: Judged, type_: str | None = None) -> str:
    wanted = list(of_type(type_, of.wanted)) if type_ else of.wanted
    count = sum(one.is_judged for one in said)
    precision, recall, f1 = (f"{score:.3f}" for score in precision_recall(said, wanted))
    cells = (precision, recall, f1) if count else ("–", recall, "–")
    return f"| {name} | {' | '.join(cells)} | {count} | {len(wanted)} |"


def main() -> None:
    """Read the arguments, and release."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "output", "card"):
        arguments.add_argument(f"--{name}", type=Path, required=True)
    options = arguments.parse_args()
    release(options.data, options.weights, options.output, options.card)


if __name__ == "__main__":
    main()
