"""Filters: what they mean, by a second, plain evaluation on JSON; the same on every store; and what is refused."""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from hypothesis import given, settings
from hypothesis import strategies as st

from api.retrievers.hits import Retriever
from api.retrievers.narrowing import narrowed
from processors.filters import MAX_CLAUSES, MAX_DEPTH, MAX_OPERANDS, excluding, matches, parse
from schemas.fields import MAX_DEPTH as MAX_METADATA_DEPTH
from schemas.fields import ORDINALS, TERMS, fields_of, indexed, ordinal
from schemas.records import Chunk, EmbeddedChunk, Revision
from schemas.storage import ChunkPayload
from streams.sinks.edge import open_shard
from tests.vector_stores import DIMENSION, KINDS, MODEL, Sides, embedded, opened, opened_edge, vector_of

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

SCALARS = (
    *(None, True, False, 0, 1, 1.0, -0.0, -1, 2.5, 2**53, 2**53 + 1, -(2**70), 1e300, float("inf"), 10**400),
    *(
        "",
        "a",
        "b",
        "T",
        "ä",
        "2024",
        "2024-01-31",
        "2024-01-31T10:00:00Z",
        "2024-02-01",
        "1",
        "true",
        "\ud800",
        "x" * 300,
    ),
)
KEYS = ("a", "b", "a.b", "ü")
PATHS = ("metadata.a", "metadata.b", "metadata.a.b", "metadata.a.a", "metadata.ü.b", "metadata.none")
ATTRIBUTES: Mapping[str, tuple[Any, ...]] = {
    "document_id": ("d1", "d2", "d30"),
    "source": ("wiki", "https://example.org/a", None),
    "media_type": ("text/plain", "text/html"),
    "title": ("Leave", "Travel", None),
    "version": (1, 2, 3, 2.0),
}
FINITE = [one for one in SCALARS if one not in (float("inf"), 10**400)]
ORDERED = [one for one in FINITE if one is not None and not isinstance(one, bool)]


def conditions(values: list[Any]) -> st.SearchStrategy[Any]:
    ordered = [one for one in values if one is not None and not isinstance(one, bool)]
    operators = {
        **dict.fromkeys(("$eq", "$ne"), st.sampled_from(values)),
        **dict.fromkeys(("$in", "$nin"), st.lists(st.sampled_from(values), max_size=3)),
        **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), st.sampled_from(ordered)),
        "$exists": st.booleans(),
    }
    one = st.one_of([st.fixed_dictionaries({name: operand}) for name, operand in operators.items()])
    two = st.tuples(one, one).map(lambda both: {**both[0], **both[1]})
    return st.sampled_from(values) | one | two | st.fixed_dictionaries({"$not": one | two})


_of_metadata = st.dictionaries(st.sampled_from(PATHS), conditions(FINITE), max_size=2)
_of_attributes = st.one_of(
    [st.fixed_dictionaries({name: conditions(list(values))}) for name, values in ATTRIBUTES.items()]
)
filters = st.recursive(
    _of_metadata | _of_attributes,
    lambda inner: (
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"$not": inner})
    ),
    max_leaves=4,
)
metadata_values = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
    max_leaves=5,
)


def holds(filter_: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """The filter, read and decided in the plainest way."""
    return all(_entry_holds(name, value, document) for name, value in filter_.items())


def _entry_holds(name: str, value: Any, document: Mapping[str, Any]) -> bool:
    if name == "$and":
        return all(holds(one, document) for one in value)
    if name == "$or":
        return any(holds(one, document) for one in value)
    if name == "$not":
        return not holds(value, document)
    found = list(reached(document, name))
    condition = value if isinstance(value, dict) else {"$eq": value}
    return all(_holds(operator, operand, found) for operator, operand in condition.items())


def _holds(operator: str, operand: Any, found: list[Any]) -> bool:
    values = [one for one in found if not isinstance(one, dict | list)]
    match operator:
        case "$not":
            return not all(_holds(inner, one, found) for inner, one in operand.items())
        case "$exists":
            return bool(bool(found) == operand)
        case "$eq" | "$ne" | "$in" | "$nin":
            wanted = operand if operator in ("$in", "$nin") else [operand]
            same = any(
                kind(one) == kind(other) and one == other for one in values or [None][len(found) :] for other in wanted
            )
            return bool(same == (operator in ("$eq", "$in")))
    compare = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}[operator]
    return any(
        kind(one) == kind(operand) and kind(one) in ("number", "string") and bool(compare(one, operand))
        for one in values
    )


def kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(type(value))
    return "string" if isinstance(value, str) else "number"


def reached(node: Any, path: str) -> Iterator[Any]:
    """What lies at a path: arrays give their elements too, and a key may have dots of its own."""
    if path == "":
        yield node
        yield from (found for one in node for found in reached(one, "")) if isinstance(node, list) else ()
    elif isinstance(node, list):
        yield from (found for one in node for found in reached(one, path))
    elif isinstance(node, dict):
        for key, value in node.items():
            if path == key:
                yield from reached(value, "")
            elif path.startswith(f"{key}."):
                yield from reached(value, path[len(key) + 1 :])


def as_json(chunk: Chunk) -> dict[str, Any]:
    """The document as a filter sees it; what is not set is not there."""
    fields = {name: getattr(chunk, name) for name in ATTRIBUTES}
    return {name: value for name, value in fields.items() if value is not None} | {"metadata": chunk.metadata}


def chunk_with(metadata: Mapping[str, Any], **fields: Any) -> Chunk:
    (item,) = embedded("d1", ["text"], Revision(1, 0), metadata=metadata, **fields)
    return item.chunk


@given(st.dictionaries(st.sampled_from(KEYS), metadata_values, max_size=3), filters)
@settings(max_examples=200, deadline=None)
def test_a_filter_means_what_its_plain_evaluation_says(metadata: dict[str, Any], filter_: dict[str, Any]) -> None:
    chunk = chunk_with(metadata, source="wiki")
    passes = holds(filter_, as_json(chunk))
    assert matches(parse(filter_), fields_of(chunk, chunk.metadata)) == passes
    assert (excluding(parse(filter_), fields_of(chunk, chunk.metadata)) is None) == passes


Payload = Mapping[str, Sequence[Any]]
Condition = Callable[[Payload], bool]


class Plain:
    """Conditions as functions of a payload."""

    def one_of(self, key: str, values: Sequence[str]) -> Condition:
        return lambda payload: not set(values).isdisjoint(payload.get(key, ()))

    def between(self, key: str, least: float, most: float) -> Condition:
        return lambda payload: any(least <= one <= most for one in payload.get(key, ()))

    def is_empty(self, key: str) -> Condition:
        return lambda payload: not payload.get(key)

    def all_of(self, conditions: Sequence[Condition]) -> Condition:
        return lambda payload: all(one(payload) for one in conditions)

    def any_of(self, conditions: Sequence[Condition]) -> Condition:
        return lambda payload: any(one(payload) for one in conditions)

    def none_of(self, conditions: Sequence[Condition]) -> Condition:
        return lambda payload: not any(one(payload) for one in conditions)


@given(st.dictionaries(st.sampled_from(KEYS), metadata_values, max_size=3), filters)
@settings(max_examples=100, deadline=None)
def test_narrowing_never_leaves_out_what_passes(metadata: dict[str, Any], filter_: dict[str, Any]) -> None:
    fields = fields_of(chunk_with(metadata), metadata)
    condition = narrowed(parse(filter_), Plain())
    if matches(parse(filter_), fields) and condition is not None:
        assert condition(indexed(fields))
        assert condition({})


@pytest.mark.parametrize(
    "filter_",
    [
        {"metadata.n": 5},
        {"metadata.n": {"$ne": 5}},
        {"metadata.n": {"$gte": 5, "$lte": 7}},
        {"metadata.n": {"$in": [1, 9]}, "metadata.day": {"$exists": True}},
        {"metadata.day": {"$gte": "2024-01-04", "$lte": "2024-01-06"}},
        {"$or": [{"metadata.n": {"$lte": 2}}, {"$not": {"metadata.n": {"$in": [1, 2, 3]}}}]},
        {"metadata.absent": None, "metadata.n": 3},
    ],
)
def test_numbers_days_and_equality_are_narrowed_to_the_point(filter_: dict[str, Any]) -> None:
    condition = narrowed(parse(filter_), Plain())
    assert condition is not None
    for number in range(10):
        chunk = chunk_with({"n": number, "day": f"2024-01-{number + 1:02}"})
        assert condition(indexed(fields_of(chunk, chunk.metadata))) == holds(filter_, as_json(chunk))


@given(st.sampled_from(ORDERED) | st.text() | st.integers() | st.floats(allow_nan=False), st.data())
@settings(max_examples=50, deadline=None)
def test_ordinals_never_fall(value: Any, data: st.DataObject) -> None:
    others = st.text() if isinstance(value, str) else st.integers() | st.floats(allow_nan=False)
    smaller, greater = sorted([value, data.draw(others)])
    assert ordinal("metadata.a", smaller) <= ordinal("metadata.a", greater)


def test_days_have_ordinals_of_their_own() -> None:
    days = [f"{year}-{month:02}-{day:02}" for year in (1999, 2024) for month in (1, 9, 10) for day in (1, 2, 30)]
    assert len({ordinal("metadata.day", day) for day in days}) == len(days)


# On the stores.

DOCUMENTS = 40


def _documents() -> list[EmbeddedChunk]:
    """Documents whose metadata is drawn at random, always the same."""
    chance = random.Random(7)

    def value(depth: int) -> Any:
        match chance.randrange(8 if depth < 3 else 5):
            case 5 | 6:
                return [value(depth + 1) for _ in range(chance.randrange(3))]
            case 7:
                return {chance.choice(KEYS): value(depth + 1) for _ in range(chance.randrange(3))}
        return chance.choice([one for one in SCALARS if one != 10**400])

    return [
        item
        for number in range(DOCUMENTS)
        for item in embedded(
            f"d{number}",
            [f"text {number}", f"more {number}"],
            Revision(1 + number % 3, 0),
            metadata={key: value(0) for key in chance.sample(KEYS, chance.randrange(1, 4))},
            **{name: chance.choice(ATTRIBUTES[name]) for name in ("source", "title")},
            media_type=chance.choice(ATTRIBUTES["media_type"]),
        )
    ]


ITEMS = _documents()


@pytest.fixture(params=KINDS, scope="module")
def retriever(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    with opened(request.param, tmp_path_factory.mktemp("store")) as sides:
        half = len(ITEMS) // 2
        sides.sink.write({}, ITEMS[:half], live=True)
        with pytest.MonkeyPatch.context() as patch:  # the others as they were written before there were filters
            patch.setattr(ChunkPayload, "stored", ChunkPayload.model_dump)
            sides.sink.write({}, ITEMS[half:], live=True)
        yield sides.retriever


@given(filters, st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_store_finds_the_best_of_those_that_pass(
    retriever: Retriever, filter_: dict[str, Any], limit: int
) -> None:
    query = vector_of("text 3")
    passing = [item for item in ITEMS if holds(filter_, as_json(item.chunk))]
    hits = retriever.search(query, None, limit=limit, filter_=parse(filter_))
    assert [hit.text for hit in hits] == [item.chunk.text for item in _by_cosine(passing)[:limit]]
    everything = {hit.chunk_id: hit.text for hit in retriever.search(query, None, limit=100)}
    chunks = retriever.chunks([*everything], filter_=parse(filter_))
    assert sorted(chunk.text for chunk in chunks.values()) == sorted(item.chunk.text for item in passing)


def _by_cosine(items: list[EmbeddedChunk]) -> list[EmbeddedChunk]:
    query = vector_of("text 3")
    return sorted(items, key=lambda item: -float(item.vector @ query) / float((item.vector @ item.vector) ** 0.5))


def test_vectors_are_fetched_by_id(retriever: Retriever) -> None:
    (hit,) = retriever.search(vector_of("text 3"), None, limit=1)
    found = retriever.vectors([hit.chunk_id, "00000000-0000-0000-0000-000000000000"])
    assert found.keys() == {hit.chunk_id}
    assert float(found[hit.chunk_id] @ vector_of("text 3")) == pytest.approx(
        float(vector_of("text 3") @ vector_of("text 3")) ** 0.5
    )


def test_staged_chunks_are_not_fetched(tmp_path: Path) -> None:
    for sort in KINDS:
        with opened(sort, tmp_path / sort) as sides:
            sides.sink.write({}, embedded("a", ["text"], Revision(1, 0)), live=True)
            (hit,) = sides.retriever.search(vector_of("text"), None, limit=1)
            sides.sink.write({}, embedded("a", ["text"], Revision(1, 0)), live=False)
            assert sides.retriever.chunks([hit.chunk_id]) == {}


def test_a_shard_of_before_there_were_filters_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = open_shard(tmp_path, model=MODEL, dimension=DIMENSION)
    for name in (TERMS, ORDINALS):
        shard.update(edge.UpdateOperation.delete_field_index(name))
    shard.close()
    with monkeypatch.context() as patch:
        patch.setattr(ChunkPayload, "stored", ChunkPayload.model_dump)
        sides = opened_edge(tmp_path)
        sides.sink.write({}, embedded("old", ["text"], Revision(1, 0), metadata={"year": 2020}), live=True)
        sides.sink.close()
    sides = opened_edge(tmp_path)
    sides.sink.write({}, embedded("new", ["text"], Revision(1, 0), metadata={"year": 2021}), live=True)
    assert _found(sides, {"metadata.year": {"$gte": 2020}}) == {"old", "new"}
    assert _found(sides, {"metadata.year": 2020}) == {"old"}
    assert _found(sides, {"metadata.year": {"$ne": 2020}}) == {"new"}
    sides.sink.close()


def _found(sides: Sides, filter_: Mapping[str, Any]) -> set[str]:
    hits = sides.retriever.search(vector_of("text"), None, limit=9, filter_=parse(filter_))
    return {hit.document_id for hit in hits}


def test_what_has_too_many_values_is_found_all_the_same() -> None:
    chunk = chunk_with({"tags": [f"tag {number}" for number in range(300)]})
    assert indexed(fields_of(chunk, chunk.metadata)) == {}


def test_metadata_is_read_to_a_bounded_depth() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"k": deep}
    fields = fields_of(chunk_with({}), deep)
    assert max(path.count(".") for path in fields) == MAX_METADATA_DEPTH


# What is refused.


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        ([], "the filter must be an object of fields"),
        (
            {"team": "x"},
            "team is no field; fields are document_id, source, media_type, title, version, and metadata.<key>",
        ),
        ({"$nor": []}, "$nor is no operator here; allowed are $and, $or, $not"),
        ({"$or": []}, "$or must be a list of at least one filter"),
        ({"$or": [{"title": "x"}, 3]}, "$or.1 must be an object"),
        ({"metadata.year": {"$regex": "x"}}, "metadata.year.$regex is no operator; allowed are $eq, $ne"),
        ({"metadata.year": {}}, "metadata.year must be a value, or an object of $eq"),
        ({"metadata.year": ["x"]}, "metadata.year must be a string, a number, a boolean or null"),
        ({"metadata.year": {"$in": "x"}}, "metadata.year.$in must be a list"),
        ({"metadata.year": {"$in": [1, {}]}}, "metadata.year.$in.1 must be a string"),
        ({"$not": {"version": {"$gt": None}}}, "$not.version.$gt must be a number or a string"),
        ({"version": {"$lt": True}}, "version.$lt must be a number or a string"),
        ({"version": {"$lt": float("nan")}}, "version.$lt must be a finite number"),
        ({"title": {"$exists": 1}}, "title.$exists must be true or false"),
        ({"title": "x" * 3000}, "title is longer than 2048 characters"),
        ({f"metadata.{'k' * 300}": 1}, "is longer than 256 characters"),
        ({"title": {"$in": ["x"] * (MAX_OPERANDS + 1)}}, f"at most {MAX_OPERANDS} are allowed"),
        ({"$or": [{"title": "x"}] * MAX_CLAUSES}, f"at most {MAX_CLAUSES} are allowed"),
        ({"$and": [{}] * MAX_CLAUSES}, f"at most {MAX_CLAUSES} are allowed"),
    ],
)
def test_what_is_wrong_is_said_and_where(filter_: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(filter_)


@pytest.mark.parametrize("wrapped", [lambda inner: {"$not": inner}, lambda inner: {"$and": [inner]}])
def test_depth_is_bounded(wrapped: Any) -> None:
    filter_: Any = {"title": "x"}
    for _ in range(MAX_DEPTH - 1):
        filter_ = wrapped(filter_)
    parse(filter_)
    with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} deep"):
        parse(wrapped(filter_))
    condition: Any = {"$eq": 1}
    for _ in range(MAX_DEPTH + 1):
        condition = {"$not": condition}
    with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} deep"):
        parse({"title": condition})


def test_the_clause_that_excludes_is_named() -> None:
    filter_ = parse(
        {"title": "x", "$and": [{"source": "s"}, {"version": {"$gte": 2, "$lt": 5}}], "$not": {"title": "y"}}
    )
    assert excluding(filter_, {"title": ["x"], "source": ["s"], "version": [7]}) == "$and.1.version.$lt"
    assert excluding(filter_, {"title": ["y", "x"], "source": ["s"], "version": [3]}) == "$not"
    assert excluding(filter_, {"title": ["x"], "source": ["s"], "version": [3]}) is None
    assert excluding(parse({}), {}) is None
