"""Typed relations by the model that this project trained (training/RELATIONS_CARD.md), where it is sure of them."""

import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from processors import bert
from processors.batching import in_halves
from processors.errors import PermanentError
from processors.model_folder import model_folder
from processors.relations import graph
from processors.relations.pairs import MAX_PAIRS, SYMMETRIC, TYPES, Pairs, Placed, pairs_of
from processors.runtimes.openvino import compiled, inferred
from processors.sentences import sentences
from schemas.ids import entity_id
from schemas.records import Mention, Relation
from schemas.vocabulary import fits

PACKAGED = Path(__file__).parent / "model"
FORMAT = 1
WEIGHTS = "relations.safetensors"

_MAX_RELATIONS = 32
_MAX_EVIDENCE = 300


@dataclass(frozen=True, slots=True)
class Scored:
    """A type of relation between two mentions, by their places in what was given, and its score's logit."""

    source: int
    target: int
    type: str
    score: float


class ClassifiedRelations:
    """Relations of the types that are precise enough on texts the model has not seen, as sure as each type needs.

    May be shared by threads; forward passes take turns. A text passes through the encoder once, and what lies behind
    its first 510 word pieces is not read.

    Args:
        folder: The trained part: ``config.json`` and ``relations.safetensors``.
        max_pairs: Of one forward pass.
        threads: CPU threads; 0 means all that this process may use.

    Raises:
        ValueError: The folder holds no such model, or files are damaged or not of the same version.
    """

    def __init__(self, folder: Path = PACKAGED, *, max_pairs: int = MAX_PAIRS, threads: int = 0) -> None:
        config = _config(folder)
        base = model_folder(config["base"])
        self.name: str = config["name"]
        self._scale, self._shift = config["calibration"]
        self._thresholds: Mapping[str, float] = config["thresholds"]
        self.tokenizer = base.tokenizer
        weights = {
            **bert.verified_safetensors(base.path / "model.safetensors", config["base_sha256"]),
            **bert.verified_safetensors(folder / WEIGHTS, config["sha256"]),
        }
        model = graph.build(bert.encoder_config(base.path, pooling="mean"), weights)
        self._request = compiled(model, precision="f32", threads=threads).create_infer_request()
        self._max_pairs = max_pairs
        self._turn = threading.Lock()

    def relations(self, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[tuple[Relation, ...]]:
        """As ``RelationExtractor.relations``: the surest first, at most 32 of a text.

        Raises:
            PermanentError: A text is no valid Unicode.
            UnavailableError: The device failed.
        """
        placed = [
            [Placed(one.start, one.end, one.type, entity_id(one.type, one.name)) for one in of] for of in mentions
        ]
        found = self.scored(texts, placed)
        return [self._relations(text, of, here) for text, of, here in zip(texts, placed, found, strict=True)]

    def scored(self, texts: Sequence[str], mentions: Sequence[Sequence[Placed]]) -> list[list[Scored]]:
        """What may hold between any two entities of each text, by the mentions that say it most clearly."""
        try:
            encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeError) as error:
            raise PermanentError(f"a text cannot be tokenised, it is no valid Unicode: {error}") from error
        return [self._scored(text, encoding, of) for text, encoding, of in zip(texts, encodings, mentions, strict=True)]

    def confidence(self, score: float) -> float:
        """The probability that what has this score is true."""
        return float(1 / (1 + np.exp(-(self._scale * score + self._shift))))

    def is_sure(self, type_: str, score: float) -> bool:
        """Whether a relation of this type and score is said."""
        return type_ in self._thresholds and self.confidence(score) >= self._thresholds[type_]

    def _scored(self, text: str, encoding: Encoding, mentions: Sequence[Placed]) -> list[Scored]:
        pairs = pairs_of(text, encoding, mentions)
        if not len(pairs.pairs):
            return []
        places = pairs.mentions[pairs.pairs]
        best: dict[tuple[str, str, str], Scored] = {}
        for (source, target), row in zip(places.tolist(), self._scores(pairs).tolist(), strict=True):
            ends = mentions[source], mentions[target]
            for type_, score in zip(TYPES, row, strict=True):
                if fits(type_, ends[0].type, ends[1].type):
                    key = ends[0].entity, ends[1].entity, type_
                    if key not in best or score > best[key].score:
                        best[key] = Scored(source, target, type_, score)
        return list(best.values())

    def _scores(self, pairs: Pairs) -> NDArray[np.float32]:
        """The scores of a text's pairs, [pairs, types], in as many passes as the memory asks for."""
        rows = range(len(pairs.pairs))
        passes = (rows[first : first + self._max_pairs] for first in range(0, len(rows), self._max_pairs))
        return np.stack([row for some in passes for row in in_halves(partial(self._pass, pairs), some)])

    def _pass(self, pairs: Pairs, rows: Sequence[int]) -> list[NDArray[np.float32]]:
        some = slice(rows[0], rows[-1] + 1)
        of_text = pairs.ids[None], pairs.kinds[None], pairs.spans
        of_pairs = (pairs.pairs, pairs.distances, pairs.pair_classes, pairs.zones)
        inputs = [*of_text, *(values[some] for values in of_pairs)]
        with self._turn:
            return list(inferred(self._request, inputs, model=f"the model {self.name}"))

    def _relations(self, text: str, mentions: Sequence[Placed], scored: Sequence[Scored]) -> tuple[Relation, ...]:
        sure = [one for one in scored if self.is_sure(one.type, one.score)]
        bounds = list(sentences(text)) if sure else []
        return tuple(
            Relation(
                source=mentions[one.source].entity,
                target=mentions[one.target].entity,
                type=one.type,
                evidence=_evidence(text, bounds, mentions[one.source], mentions[one.target]),
                confidence=self.confidence(one.score),
            )
            for one in one_way(sure, mentions)[:_MAX_RELATIONS]
        )


def one_way(scored: Sequence[Scored], mentions: Sequence[Placed]) -> list[Scored]:
    """Surest first; of a type that was found both ways the surer one, from the smaller id if the type has no way."""
    chosen: dict[tuple[frozenset[str], str], Scored] = {}
    for one in sorted(scored, key=lambda one: -one.score):
        source, target = mentions[one.source].entity, mentions[one.target].entity
        if one.type in SYMMETRIC and target < source:
            one = Scored(one.target, one.source, one.type, one.score)  # noqa: PLW2901
        chosen.setdefault((frozenset((source, target)), one.type), one)
    return list(chosen.values())


def _evidence(text: str, bounds: Sequence[tuple[int, int]], source: Placed, target: Placed) -> str:
    """The sentences that hold both, or, if they are long, what lies between the two."""
    start, end = min(source.start, target.start), max(source.end, target.end)
    starts = [first for first, _ in bounds]
    whole = text[bounds[bisect_right(starts, start) - 1][0] : bounds[bisect_right(starts, end - 1) - 1][1]]
    evidence = " ".join(whole.split())
    return evidence if len(evidence) <= _MAX_EVIDENCE else " ".join(text[start:end].split())[:_MAX_EVIDENCE]


def _config(folder: Path) -> dict[str, Any]:
    config = bert.read_json(folder / "config.json")
    if config.get("format") != FORMAT or config.get("types") != list(TYPES):
        raise ValueError(f"{folder}/config.json describes a relation classifier of another version")
    return config
