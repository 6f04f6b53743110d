import math

import pytest

from processors.bridges import Step, activations, evidence, most_promising, possible_entities, steps
from schemas.ids import entity_id


def test_a_question_may_name_any_run_of_its_words_as_any_type() -> None:
    possible = possible_entities("Which film of Dr. Jürgen Müller-Lüdenscheidt is older, 'The Wall' or Free Guy?")
    assert possible[entity_id("PERSON", "jurgen muller ludenscheidt")] == "jurgen muller ludenscheidt"
    assert possible[entity_id("WORK", "wall")] == "wall"
    assert possible[entity_id("WORK", "free guy")] == "free guy"
    assert entity_id("WORK", "which") not in possible


@pytest.mark.parametrize(("question", "most"), [("", 0), ("who is it", 0), ("word " * 5000, 5 * 8)])
def test_possible_entities_are_bounded(question: str, most: int) -> None:
    assert len(possible_entities(question)) <= most
    distinct = " ".join(f"w{number}" for number in range(5000))
    assert len(possible_entities(distinct)) <= 64 * 5 * 8


def test_the_rarer_a_name_the_more_a_step_along_it_weighs() -> None:
    assert list(steps("free guy", ["a"], origins={None: 1.0})) == [Step("a", "free guy", 1.0)]
    weights = {step.weight for step in steps("usa", [f"c{number}" for number in range(16)], origins={None: 1.0})}
    assert weights == {0.25}


def test_no_step_ends_where_it_starts() -> None:
    found = set(steps("levy", ["parent", "other"], origins={"parent": 0.5, None: 1.0}))
    assert found == {
        Step("other", "levy", 0.5),
        Step("parent", "levy", 1 / math.sqrt(2)),
        Step("other", "levy", 1 / math.sqrt(2)),
    }
    assert list(steps("levy", ["parent"], origins={"parent": 1.0})) == []


def test_parents_far_behind_count_little() -> None:
    assert activations([]) == []
    assert activations([0.9, 0.9, 0.5]) == pytest.approx([1, 1, math.exp(-2)])


def test_the_most_promising_chunks_keep_all_their_steps() -> None:
    found = [Step("a", "x", 0.5), Step("b", "x", 0.9), Step("a", "y", 0.1), Step("c", "x", 0.2)]
    assert most_promising(found, limit=2) == [Step("b", "x", 0.9), Step("a", "x", 0.5), Step("a", "y", 0.1)]


def test_a_passage_that_begins_with_the_name_is_worth_twice_one_that_mentions_it() -> None:
    passages: dict[str, tuple[str | None, str]] = {
        "titled": ("Shawn Levy (director)", "He was born in Montreal."),
        "opening": (None, "Shawn Levy, born in Montreal, is a director."),
        "aside": ("Montreal", "A city in Canada, and a large one at that, with many bridges; home of Shawn Levy."),
        "part of a word": (None, "Shawn Levying taxes."),
    }
    found = [Step(id_, "shawn levy", 0.8) for id_ in passages]
    worth = evidence([*found, Step("titled", "montreal", 0.3), Step("unknown", "x", 1.0)], passages)
    assert worth == {"titled": 0.8, "opening": 0.8, "aside": 0.4, "part of a word": 0.4}
