"""What may happen to documents that share their sentences, drawn by hypothesis, and what has to be left of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hypothesis import strategies as st

DOCUMENTS = 40
_PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Jay Kreps", "Margaret Hamilton", "Linus Torvalds")
_PLACES = ("Bletchley Park", "Bell Labs", "Geneva", "New York City", "Zurich", "Mountain View")
_SENTENCES = tuple(
    f"In {1900 + 7 * number % 120}, {person} met {_PEOPLE[(number + 1 + number // 6) % 6]} at {place} and wrote the "
    f"letter number {number} about engines, compilers and the weather."
    for number, (person, place) in enumerate((person, place) for person in _PEOPLE for place in _PLACES)
)


class Publish(NamedTuple):
    """A document's text; ``is_late`` gives it a version below that of everything that is not late."""

    document_id: str
    text: str
    is_late: bool = False


class Delete(NamedTuple):
    """A document's removal, whether there is such a document or not; ``is_raw`` by a null value, as any client may."""

    document_id: str
    is_raw: bool = False


@dataclass(frozen=True)
class Kill:
    """kill -9 of one of the processes."""

    process: Literal["node", "worker"]


Operation = Publish | Delete | Kill

_ids = st.integers(0, DOCUMENTS - 1).map("doc-{}".format)
_texts = st.lists(st.sampled_from(_SENTENCES), min_size=1, max_size=8).map(" ".join)
_rarely = st.integers(0, 11).map(lambda number: number == 7)
_changes: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Publish, _ids, _texts, _rarely),
    st.builds(Publish, _ids, st.sampled_from(_SENTENCES[:3]), _rarely),  # the same again, now and then
    st.builds(Delete, _ids, st.booleans()),
)


@st.composite
def histories(draw: st.DrawFn, *, length: int, kills: int) -> list[Operation]:
    """So many changes, with as many kills of the node as of the worker, each somewhere in its share of the history."""
    history = draw(st.lists(_changes, min_size=length, max_size=length))
    share = length // max(1, kills)
    for turn in reversed(range(kills)):
        place = turn * share + draw(st.integers(0, share - 1))
        history.insert(place, Kill("node" if turn % 2 else "worker"))
    return history


def left_of(history: Sequence[Operation]) -> dict[str, str]:
    """The texts of the documents that are there in the end."""
    newest: dict[str, tuple[bool, str | None]] = {}  # whether that was in time, and the text
    for one in history:
        if isinstance(one, Kill):
            continue
        in_time = isinstance(one, Delete) or not one.is_late
        if one.document_id not in newest or in_time or not newest[one.document_id][0]:
            newest[one.document_id] = (in_time, one.text if isinstance(one, Publish) else None)
    return {document_id: text for document_id, (_, text) in newest.items() if text is not None}
