"""Programs that talk to the API: the Python client, the tools for language models, JavaScript and curl."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import httpx
import pytest
from mcp import Client, StdioServerParameters

from api.client import Aegis, NotInTimeError, NotSearchableError, RefusedError, UnreachableError, shapes
from deploy.local.broker import free_port
from processors.errors import UnavailableError
from tests.answer_shelf import shelved
from tests.api_server import Stack, serving
from tests.client_examples import examples, printed
from tests.waiting import until

HEAVY = ("torch", "openvino", "faust", "numpy", "fastapi", "confluent_kafka", "qdrant_client", "processors", "streams")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with serving(change=shelved) as stack:
        stack.status.report("handbook/leave", 5000, chunk="chunked", index_vectors="indexed", index_graph="indexed")
        stack.dead_letters.add("chunk/0/7", document_id="reports/late", error="there is no such blob")
        yield stack


@pytest.fixture
def aegis(stack: Stack) -> Iterator[Aegis]:
    with Aegis(f"http://127.0.0.1:{stack.port}", patience=0) as aegis:
        yield aegis


def test_importing_the_client_loads_nothing_of_the_server() -> None:
    code = f"import api.client, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_clients_shapes_are_those_of_the_openapi_document(stack: Stack) -> None:
    described = stack.http.get("/openapi.json").json()["components"]["schemas"]
    typed = {name: shape for name, shape in vars(shapes).items() if is_typeddict(shape)}
    assert len(typed) > 10
    for name, shape in typed.items():
        assert get_type_hints(shape).keys() <= described[name]["properties"].keys(), name


def test_a_text_and_a_file_are_published_and_deleted(stack: Stack, aegis: Aegis, tmp_path: Path) -> None:
    (tmp_path / "räume.csv").write_text("room,team\n12,people\n")
    accepted = aegis.publish("Call before nine.", document_id="handbook/sick", metadata={"team": "people"})
    named = aegis.publish_file(tmp_path / "räume.csv", document_id="tables/rooms", metadata={"year": 2026})
    removed = aegis.delete("handbook/fax #1")
    published = {document.document_id: document for document, _ in stack.publisher.log}
    assert published["handbook/sick"].metadata == {"team": "people"}
    assert published["handbook/sick"].version == accepted["version"]
    assert published["tables/rooms"].media_type == "text/csv"
    assert published["tables/rooms"].metadata == {"year": 2026}
    assert named["document_id"] == "tables/rooms"
    assert removed["document_id"] == "handbook/fax #1"
    assert published["handbook/fax #1"].operation == "delete"


def test_waiting_ends_when_the_version_answers_when_it_never_will_and_when_the_time_is_over(
    stack: Stack, aegis: Aegis
) -> None:
    assert aegis.wait_until_searchable("handbook/leave", 5000)["state"] == "indexed"
    with pytest.raises(NotInTimeError, match="is indexed after 0 s"):
        aegis.wait_until_searchable("handbook/leave", 5001, within=0.2)
    with pytest.raises(NotInTimeError, match="is unknown"):
        aegis.wait_until_searchable("handbook/unheard", within=0.2)
    stack.status.report("empty", 3, error="the document holds no text", chunk="dead-lettered")
    with pytest.raises(NotSearchableError, match="holds no text"):
        aegis.wait_until_searchable("empty", 3)


def test_questions_are_answered_at_once_and_as_they_come(aegis: Aegis) -> None:
    found = aegis.search("How many days of leave are there?", limit=2, filter={"metadata.team": "people"})
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    assert "30 days of leave" in aegis.ask("How many days of leave are there?")["answer"]
    events = list(aegis.ask_streamed("How many days of leave are there?", cache=False))
    assert events[0][0] == "search_results"
    assert events[-1][0] == "final_answer"
    assert aegis.entities("Ada Lovelace") == []


def test_an_error_in_a_stream_is_raised_as_any_other(stack: Stack, aegis: Aegis) -> None:
    stack.retriever.error = UnavailableError("secret", retry_after=7)
    try:
        with pytest.raises(RefusedError) as caught:
            list(aegis.ask_streamed("Is anybody there?", cache=False))
    finally:
        stack.retriever.error = None
    assert (caught.value.status, caught.value.kind) == (503, "unavailable")


def test_operators_ask_for_lag_and_replay_dead_letters(stack: Stack, aegis: Aegis) -> None:
    assert {group["stage"] for group in aegis.lag()} >= {"chunk", "index-graph"}
    assert aegis.dead_letters(document="reports/*")["total"] == 1
    assert aegis.replay(document="reports/*", dry_run=True)["dead_letters"][0]["id"] == "chunk/0/7"
    assert stack.dead_letters.replayed == []


def test_a_refusal_says_what_is_wrong_with_what(aegis: Aegis) -> None:
    with pytest.raises(RefusedError, match=r"body\.limit") as caught:
        aegis.search("anything", limit=1000)
    assert (caught.value.status, caught.value.kind) == (422, "invalid-request")
    assert caught.value.request_id
    with pytest.raises(UnreachableError), Aegis(f"http://127.0.0.1:{free_port()}") as nobody:
        nobody.lag()


def test_a_busy_api_is_asked_again_when_it_says(stack: Stack) -> None:
    stack.retriever.error = UnavailableError("secret", retry_after=1)
    before = len(stack.retriever.searches)
    mended = threading.Timer(0.3, setattr, (stack.retriever, "error", None))
    mended.start()
    with Aegis(f"http://127.0.0.1:{stack.port}", patience=20) as aegis:
        assert aegis.search("leave")["hits"]
    mended.join()
    assert len(stack.retriever.searches) == before + 2


def test_no_longer_than_the_callers_patience(stack: Stack) -> None:
    stack.retriever.error = UnavailableError("secret", retry_after=100)
    before = len(stack.retriever.searches)
    try:
        with Aegis(f"http://127.0.0.1:{stack.port}", patience=20) as aegis, pytest.raises(RefusedError) as caught:
            aegis.search("leave")
    finally:
        stack.retriever.error = None
    assert (caught.value.status, caught.value.retry_after) == (503, 100)
    assert len(stack.retriever.searches) == before + 1


def test_the_examples_work(stack: Stack) -> None:
    ran = [(language, printed(language, code)) for language, code in examples(f"http://127.0.0.1:{stack.port}")]
    assert [language for language, _ in ran] == ["python", "js", *["sh"] * 5]
    assert "30 days of leave" in ran[0][1]
    assert "approves leave" in ran[1][1]
    assert all(json.loads(out) for _, out in ran[2:])
    assert stack.dead_letters.replayed == ["chunk/0/7"]


def test_a_model_is_given_the_tools(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.port}"
    command = StdioServerParameters(command=sys.executable, args=["-m", "deploy.cli", "mcp", "--url", url])
    asyncio.run(_use_tools(command, stack))


def test_the_tools_are_served_over_http_on_this_machine_alone(stack: Stack) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{stack.port}"
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "mcp", "--url", url, "--http", str(port)])
    try:
        _wait_for(port)
        asyncio.run(_use_tools(f"http://127.0.0.1:{port}/mcp", stack))
        strange = httpx.post(f"http://127.0.0.1:{port}/mcp", headers={"Host": "evil.example"}, json={}, trust_env=False)
        assert strange.is_client_error
    finally:
        process.terminate()
        process.wait(20)


async def _use_tools(server: StdioServerParameters | str, stack: Stack) -> None:
    async with Client(server, read_timeout_seconds=60) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools.keys() == {"search", "ask", "publish", "status", "entities"}
        found = await _call(client, "search", query="How many days of leave are there?", limit=1)
        assert "it is data" in found["notice"].lower()
        assert "30 days of leave" in found["untrusted"][0]["text"]
        answer = await _call(client, "ask", question="How many days of leave are there?")
        assert "30 days of leave" in answer["untrusted"]["answer"]
        assert (await _call(client, "status", document_id="handbook/leave"))["state"] == "indexed"
        accepted = await _call(client, "publish", document_id="notes/model", text="Written by a model.")
        assert stack.publisher.log[-1][0].version == accepted["version"]
        unknown = await client.call_tool("status", {"document_id": "nobody/knows"})
        assert unknown.is_error
        assert "not-found" in str(unknown.content)


async def _call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    structured: dict[str, Any] = result.structured_content
    return structured


def _wait_for(port: int) -> None:
    def answers() -> bool:
        with suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/mcp", trust_env=False)
            return True
        return False

    until(answers)
