"""Groups of entities: the same in every order, never against a decision, and short forms only where they are clear."""

import random

from hypothesis import given
from hypothesis import strategies as st

from processors.resolve import Link, resolved

IDS = st.sampled_from("abcdefg")
PAIRS = st.tuples(IDS, IDS).filter(lambda pair: pair[0] != pair[1])
LINKS = st.lists(
    st.builds(
        lambda pair, score, short, by: Link(pair[0], pair[1], "why", score, by, short and by == "rule"),
        PAIRS,
        st.sampled_from([0.9, 0.95]),
        st.booleans(),
        st.sampled_from(["rule", "rule", "person"]),
    ),
    max_size=10,
)


def groups(*links: Link, apart: tuple[tuple[str, str], ...] = ()) -> set[str]:
    return {"".join(sorted(group)) for group in resolved(links, apart).groups.values()}


@given(LINKS, st.lists(PAIRS, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_links_decides_nothing(
    links: list[Link], apart: list[tuple[str, str]], dice: random.Random
) -> None:
    once = resolved(links, apart)
    dice.shuffle(links)
    dice.shuffle(apart)
    again = resolved([*links, *links[:2]], [*apart, *(pair[::-1] for pair in apart)])
    assert (again.groups, again.links, again.refusals) == (once.groups, once.links, once.refusals)
    for one, other in apart:
        assert other not in once.group(one)
    for id_, group in once.groups.items():
        for other in group - {id_}:
            chain = once.chain(id_, other)
            assert chain[0].first == id_ or chain[0].second == id_
            assert other in chain[-1].ends
    assert set(links) == {*once.links, *(refusal.link for refusal in once.refusals)}


def test_links_join_and_a_person_tells_apart() -> None:
    a_b, b_c = Link("a", "b", "spelling", 0.99), Link("b", "c", "sound", 0.96)
    assert groups(a_b, b_c) == {"abc"}
    assert groups(a_b, b_c, apart=(("c", "a"),)) == {"ab"}
    assert groups(a_b, Link("b", "c", "said so", by="person"), apart=(("a", "c"),)) == {"bc"}
    (refusal,) = resolved([a_b, b_c], [("c", "a")]).refusals
    assert (refusal.link, refusal.why) == (b_c, "a person told them apart")


def test_a_short_form_is_of_the_one_group_it_can_be_short_for() -> None:
    def short(of: str) -> Link:
        return Link("bbc", of, "short acronym", 0.85, is_short=True)

    assert resolved([short("college")]).group("bbc") == {"bbc", "college"}
    assert groups(short("college"), short("corporation")) == set()
    same = Link("college", "corporation", "spelling", 0.99)
    assert resolved([short("college"), short("corporation"), same]).group("bbc") == {"bbc", "college", "corporation"}
    decided = resolved([short("college"), Link("bbc", "corporation", "said so", by="person")])
    assert decided.group("bbc") == {"bbc", "corporation"}
    assert decided.refusals[0].why == "it can be short for several"
