"""Which entities are one: links by rule, decisions by people, and the groups that follow from both.

``resolved`` is a function of the links alone. Links hold from the surest down; one that would bring together what a
person has told apart does not. A short form (initials, an acronym) belongs to the one group that it can be short for:
if there are two, to none.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, order=True)
class Link:
    """Two entities, by id, that are one, and why. ``is_short``: the first is a short form, maybe of others too."""

    first: str
    second: str
    reason: str
    score: float = 1.0
    by: Literal["rule", "person"] = "rule"
    is_short: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        """Both entities."""
        return self.first, self.second


@dataclass(frozen=True)
class Refusal:
    """A link that does not hold, and why."""

    link: Link
    why: str


@dataclass(frozen=True)
class Resolution:
    """Groups of entities that are one, by member; the links that hold, and those that do not."""

    groups: Mapping[str, frozenset[str]]
    links: Sequence[Link]
    refusals: Sequence[Refusal]

    def group(self, id_: str) -> frozenset[str]:
        """The entities that are one with this, itself among them."""
        return self.groups.get(id_, frozenset((id_,)))

    def chain(self, first: str, second: str) -> list[Link]:
        """The fewest links that lead from one entity to the other; none where they are apart."""
        reached: dict[str, Link | None] = {first: None}
        waiting = deque([first])
        while waiting and second not in reached:
            here = waiting.popleft()
            for link in self.links:
                if here in link.ends and (there := _other(link, here)) not in reached:
                    reached[there] = link
                    waiting.append(there)
        chain, here = list[Link](), second
        while (step := reached.get(here)) is not None:
            chain.append(step)
            here = _other(step, here)
        return chain[::-1]


def resolved(links: Iterable[Link], apart: Iterable[tuple[str, str]] = ()) -> Resolution:
    """The groups that links make of what they name, in whatever order they come; ``apart`` never share one."""
    ordered = sorted(set(links), key=lambda link: (link.by != "person", -link.score, link))
    groups = _Groups(apart)
    for link in ordered:
        if not link.is_short:
            groups.join(link)
    _join_short(groups, [link for link in ordered if link.is_short])
    return Resolution(groups.by_member, groups.held, groups.refused)


@dataclass
class _Groups:
    apart: Iterable[tuple[str, str]]
    by_member: dict[str, frozenset[str]] = field(default_factory=dict)
    held: list[Link] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._apart = {pair for one, other in self.apart for pair in ((one, other), (other, one))}

    def of(self, id_: str) -> frozenset[str]:
        return self.by_member.get(id_, frozenset((id_,)))

    def join(self, link: Link) -> None:
        one, other = self.of(link.first), self.of(link.second)
        if one != other:
            if any((first, second) in self._apart for first in one for second in other):
                self.refused.append(Refusal(link, "a person told them apart"))
                return
            whole = one | other
            self.by_member.update(dict.fromkeys(whole, whole))
        self.held.append(link)


def _join_short(groups: _Groups, links: Sequence[Link]) -> None:
    """Join until nothing changes: a join can make one group of the two that a short form was between."""
    waiting: defaultdict[str, list[Link]] = defaultdict(list)
    for link in links:
        waiting[link.first].append(link)
    changed = True
    while changed:
        changed = False
        for short in sorted(waiting):
            if len(_meanings(groups, short, waiting[short])) == 1:
                for link in waiting.pop(short):
                    groups.join(link)
                changed = True
    for of in waiting.values():
        groups.refused += [Refusal(link, "it can be short for several") for link in of]


def _meanings(groups: _Groups, short: str, links: Sequence[Link]) -> set[frozenset[str]]:
    """The groups that a short form can belong to; where it belongs to one for another reason, that is one of them."""
    own = groups.of(short)
    return {groups.of(link.second) for link in links} | ({own} if len(own) > 1 else set())


def _other(link: Link, id_: str) -> str:
    return link.second if link.first == id_ else link.first
