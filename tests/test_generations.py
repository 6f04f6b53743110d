"""Which index answers, and the passage from one to the next."""

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.switch import Switch
from deploy.catching_up import CatchingUp
from deploy.generations import OFFERED, Generation, in_effect, make_live, offer, overruled, read, turn_down
from deploy.stores import drop_stores
from schemas.records import STAGES, State, StatusRecord
from schemas.settings import Settings
from schemas.topics import ALL, DOCUMENTS, group_of, named, retry_group_of
from streams.status import StatusView

NEW = Generation(name="g2", model="theirs", max_tokens=99, overlap_tokens=7)


def test_generations_share_the_documents_and_nothing_else() -> None:
    names = [{named(topic, generation) for topic in ALL} for generation in ("", "g2", "g3")]
    assert names[0] & names[1] == names[1] & names[2] == {DOCUMENTS.name}
    groups = [
        of(stage, generation) for stage in STAGES for of in (group_of, retry_group_of) for generation in ("", "g2")
    ]
    assert len(set(groups)) == len(groups)


def test_what_is_offered_answers_once_it_is_taken(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, embedding={"model": "mine"}, chunking={"max_tokens": 99})
    offer(tmp_path, NEW)
    assert in_effect(settings) == settings
    turn_down(tmp_path)
    assert read(tmp_path, OFFERED) is None
    offer(tmp_path, NEW)
    make_live(tmp_path)
    live = in_effect(settings)
    assert (live.generation, live.embedding.model, live.chunking.overlap_tokens) == ("g2", "theirs", 7)
    assert live.api == settings.api
    assert [line.split(",")[0] for line in overruled(settings)] == ["AEGIS_EMBEDDING__MODEL is mine"]


def test_only_the_generations_named_are_dropped(tmp_path: Path) -> None:
    for name in ("vectors", "graph", "vectors-g2", "graph-g3", "graphics", "broker"):
        (tmp_path / name).mkdir()
    drop_stores(tmp_path, lambda generation: generation in ("", "g2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broker", "graph-g3", "graphics"]


def test_a_request_sees_one_app_and_the_end_of_it_waits() -> None:
    reached, go_on = threading.Event(), threading.Event()

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        reached.set()
        await asyncio.to_thread(go_on.wait, 10)
        await send({"type": "http.response.body", "body": b"old"})

    async def ask() -> None:
        switch = Switch(old)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(switch), base_url="http://a") as client:
            first = asyncio.create_task(client.get("/"))
            await asyncio.to_thread(reached.wait, 10)
            before = switch.turn_to(answers_new)
            ending = asyncio.create_task(asyncio.to_thread(before.end))
            await asyncio.sleep(0.05)
            assert (await client.get("/")).text == "new"
            assert not ending.done()
            go_on.set()
            assert (await first).text == "old"
            await ending

    asyncio.run(ask())


def test_what_does_not_end_is_cut_off() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3600)

    async def ask() -> None:
        switch = Switch(endless)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(switch), base_url="http://a") as client:
            following = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(switch.turn_to(answers_new).end, within=0.05)
            with pytest.raises(asyncio.CancelledError):
                await following

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("old", "new", "holds"),
    [
        ("indexed", "indexed", True),
        ("deleted", "deleted", True),
        ("indexed", "dead-lettered", False),
        ("dead-lettered", "dead-lettered", True),
        ("dead-lettered", "indexed", True),
        ("indexed", "retrying", False),
    ],
)
def test_nothing_that_answers_may_be_dead_in_the_new_index(old: State, new: State, *, holds: bool) -> None:
    for version, expected in ((4, False), (5, holds), (6, True)):
        assert CatchingUp(view_with(old, 5), view_with(new, version), without_failed=False).is_done() == expected
    assert not CatchingUp(view_with(old, 5), StatusView("nowhere", max_documents=9), without_failed=True).is_done()


def test_failed_documents_are_left_out_where_that_is_wanted() -> None:
    old, new = view_with("indexed", 5), view_with("dead-lettered", 5)
    assert CatchingUp(old, new, without_failed=True).is_done()


def test_a_document_that_came_later_is_not_waited_for() -> None:
    old = view_with("indexed", 5)
    catching_up = CatchingUp(old, view_with("indexed", 5), without_failed=False)
    old.apply(StatusRecord(document_id="later", version=1, stage="chunk", state="deleted", at=2.0))
    assert catching_up.is_done()
    assert (catching_up.done, catching_up.total) == (1, 1)


def view_with(state: State, version: int) -> StatusView:
    view = StatusView("nowhere", max_documents=9)
    for stage in STAGES:
        view.apply(StatusRecord(document_id="a", version=version, stage=stage, state=state, at=1.0))
    return view


async def answers_new(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"new"})
