"""The shipped relation classifier: what it says, what it keeps to, how right it is, and damaged files."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from processors import bert
from processors.bert import sha256_of
from processors.errors import PermanentError
from processors.model_folder import model_folder
from processors.relations.classifier import PACKAGED, WEIGHTS, ClassifiedRelations
from processors.relations.pairs import TYPES, Placed, pairs_of
from schemas.ids import entity_id, normalised_name
from schemas.records import Mention, Relation
from schemas.vocabulary import fits
from training.relation_corpora import TRAINING_DOCUMENTS, Annotated, documents, passage, windows
from training.relation_export import load, save
from training.relation_network import Classifier
from training.relation_scores import judged, precision_recall
from training.relations import prepare

DATA = Path(os.environ.get("AEGIS_DATA", "../shared/data"))
CLASSIFIER = ClassifiedRelations()
CURIE = "[Marie Curie|PERSON] was born in [Warsaw|LOC] on [7 November 1867|DATE]. She married [Pierre Curie|PERSON]."
TEXTS = [
    CURIE,
    "Nobody is named here.",
    "",
    "[Acme Corp|ORG] is a company.",
    "[Berlin|LOC] is the capital of [Germany|LOC], and the largest city of the [European Union|ORG]. " * 6,
]


def marked(text: str) -> tuple[str, list[Mention]]:
    """A text and its mentions, which are written [as marked|TYPE]."""
    plain, mentions = "", []
    for number, part in enumerate(text.replace("]", "[").split("[")):
        surface, _, type_ = part.partition("|")
        if number % 2:
            start, end = len(plain), len(plain) + len(surface)
            mentions.append(Mention(start=start, end=end, text=surface, name=normalised_name(surface), type=type_))
        plain += surface
    return plain, mentions


def said(text: str) -> dict[tuple[str, str, str], Relation]:
    """Relations by their type and the names of both ends."""
    plain, mentions = marked(text)
    names = {entity_id(mention.type, mention.name): mention.text for mention in mentions}
    (relations,) = CLASSIFIER.relations([plain], [mentions])
    return {(names[one.source], one.type, names[one.target]): one for one in relations}


def test_who_was_born_where_and_when() -> None:
    relations = said(CURIE)
    assert ("Marie Curie", "BORN_IN", "Warsaw") in relations
    assert ("Marie Curie", "BORN_ON", "7 November 1867") in relations
    assert ("Warsaw", "BORN_IN", "Marie Curie") not in relations


def test_the_evidence_is_the_sentence_of_both() -> None:
    evidence = said(CURIE)["Marie Curie", "BORN_IN", "Warsaw"].evidence
    assert evidence == "Marie Curie was born in Warsaw on 7 November 1867."


def test_long_evidence_is_what_lies_between() -> None:
    text = f"[Marie Curie|PERSON] was born in [Warsaw|LOC] {'and studied, as one does, ' * 14}in secret."
    assert said(text)["Marie Curie", "BORN_IN", "Warsaw"].evidence == "Marie Curie was born in Warsaw"


def test_one_output_per_text_whatever_stands_beside_it() -> None:
    texts, mentions = zip(*map(marked, TEXTS), strict=True)
    together = CLASSIFIER.relations(texts, mentions)
    alone = [CLASSIFIER.relations([text], [of])[0] for text, of in zip(texts, mentions, strict=True)]
    assert together == alone
    assert [bool(relations) for relations in together] == [True, False, False, False, True]
    assert CLASSIFIER.relations([], []) == []


def test_relations_keep_to_the_vocabulary_and_to_one_way() -> None:
    for text, mentions in map(marked, TEXTS):
        types = {entity_id(mention.type, mention.name): mention.type for mention in mentions}
        (relations,) = CLASSIFIER.relations([text], [mentions])
        assert all(fits(one.type, types[one.source], types[one.target]) for one in relations)
        assert all(0.5 <= one.confidence <= 1 for one in relations)
        ways = [(frozenset((one.source, one.target)), one.type) for one in relations]
        assert len(ways) == len(set(ways))


def test_what_a_text_can_say_is_bounded() -> None:
    text = "The towns are " + ", ".join(f"[Town{number}|LOC] in [Land{number}|LOC]" for number in range(60)) + "."
    plain, mentions = marked(text)
    (relations,) = CLASSIFIER.relations([plain], [mentions])
    assert len(relations) <= 32
    assert all(len(one.evidence) <= 300 for one in relations)


def test_names_behind_what_is_read_have_no_relations() -> None:
    text, mentions = marked("word " * 600 + CURIE)
    assert CLASSIFIER.relations([text], [mentions]) == [()]


def test_invalid_unicode_is_refused() -> None:
    with pytest.raises(PermanentError, match="no valid Unicode"):
        CLASSIFIER.relations(["\ud800"], [[]])


def placed(text: str, *names: tuple[str, str]) -> list[Placed]:
    return [Placed(text.index(name), text.index(name) + len(name), type_, name) for name, type_ in names]


def test_zones_tell_where_a_piece_stands() -> None:
    text = "so Ada met Bob there"
    encoding = CLASSIFIER.tokenizer.encode(text, add_special_tokens=False)
    pairs = pairs_of(text, encoding, placed(text, ("Ada", "PERSON"), ("Bob", "PERSON")))
    assert pairs.pairs.tolist() == [[0, 1], [1, 0]]
    assert pairs.zones.tolist() == [[0, 0, 1, 2, 3, 4, 4], [5, 5, 8, 7, 6, 9, 9]]
    assert pairs.kinds.tolist() == [0, 0, 1, 0, 1, 0, 0]


def test_of_two_entities_the_three_closest_pairs_are_read() -> None:
    text = "Ada Bob " + "and so on " * 5 + "Ada Bob Ada"
    places = [(0, 3), (4, 7), (58, 61), (62, 65), (66, 69)]
    mentions = [Placed(start, end, "PERSON", text[start:end]) for start, end in places]
    pairs = pairs_of(text, CLASSIFIER.tokenizer.encode(text, add_special_tokens=False), mentions)
    assert sorted(map(sorted, pairs.pairs.tolist())) == [[0, 1], [0, 1], [2, 3], [2, 3], [3, 4], [3, 4]]


def test_what_is_shipped_computes_what_was_trained(tmp_path: Path) -> None:
    text, mentions = marked(CURIE)
    of_text = [Placed(one.start, one.end, one.type, one.name) for one in mentions]
    torch.manual_seed(0)
    trained = Classifier(len(TYPES)).eval()
    load(trained, bert.read_safetensors(model_folder("all-MiniLM-L6-v2").path / "model.safetensors"), "layers.")
    torch.nn.init.normal_(trained.get_parameter("blocks.0.zones.weight"))
    save(trained, tmp_path)
    config = json.loads((PACKAGED / "config.json").read_text(encoding="utf-8"))
    config["sha256"] = sha256_of(tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (scored,) = ClassifiedRelations(tmp_path).scored([text], [of_text])
    annotated = Annotated(text, of_text, frozenset(), frozenset())
    (prepared,) = prepare([annotated], CLASSIFIER.tokenizer)
    with torch.no_grad():
        scores = trained(torch.from_numpy(prepared.states).float()[None], [prepared.pairs])
    row_of = {tuple(pair): row for pair, row in zip(prepared.pairs.pairs.tolist(), scores.tolist(), strict=True)}
    expected = [row_of[one.source, one.target][TYPES.index(one.type)] for one in scored]
    assert len(scored) > 10
    np.testing.assert_allclose([one.score for one in scored], expected, atol=0.02)


def test_windows_hold_the_mentions_and_facts_of_a_document() -> None:
    document = documents(DATA)[0]
    text, *_ = windows(document, CLASSIFIER.tokenizer)
    surfaces = {text.text[mention.start : mention.end] for mention in text.mentions}
    assert {"Mediaș", "13 March 1963"} <= surfaces
    (place,) = {mention.entity for mention in text.mentions if text.text[mention.start : mention.end] == "Mediaș"}
    assert any(fact[1:] == (place, "BORN_IN") for fact in text.facts)


def test_a_passage_is_judged_by_what_it_is_annotated_with() -> None:
    text = "He is the CEO of Acme, said Ann, its CEO."
    facts: list[dict[str, object]] = [
        {"property": "CEO", "text": text, "subject": [17, 21], "object": [28, 31]},
        {"property": "CEO", "text": text, "subject": [17, 21], "object": [0, 2]},
        {"property": "HEADQUARTERS", "text": text},
    ]
    known = passage(text, facts, [])
    assert [text[one.start : one.end] for one in known.mentions] == ["Acme", "Ann"]
    assert known.facts == {("ann", "acme", "LEADS")}
    assert known.judged == {"LEADS"}


def test_it_is_right_on_documents_it_has_not_seen() -> None:
    unseen = documents(DATA)[TRAINING_DOCUMENTS:][1::2][:20]
    of_unseen = judged(CLASSIFIER, [text for one in unseen for text in windows(one, CLASSIFIER.tokenizer)])
    said = [one for one in of_unseen.said if CLASSIFIER.is_sure(one.fact[2], one.score)]
    precision, recall, _ = precision_recall(said, of_unseen.wanted)
    assert precision >= 0.7
    assert recall >= 0.2


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = shutil.copytree(PACKAGED, tmp_path / "model")
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged or of another version"):
        ClassifiedRelations(folder)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    shutil.copyfile(PACKAGED / "config.json", tmp_path / "config.json")
    with pytest.raises(ValueError, match="cannot read"):
        ClassifiedRelations(tmp_path)


@pytest.mark.parametrize("change", [{"format": 0}, {"types": ["KNOWS"]}, {"base_sha256": "0"}])
def test_another_version_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = shutil.copytree(PACKAGED, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(ValueError, match="of another version"):
        ClassifiedRelations(folder)


def test_no_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a model folder"):
        ClassifiedRelations(tmp_path)
