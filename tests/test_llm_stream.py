"""Streams of a language model: both protocols, every way to fail, and that closing one stops the server."""

import threading
from collections.abc import Iterator

import pytest

from processors.errors import UnavailableError
from processors.llm import ChatModel, ChatProtocol, RateLimitedError, RefusedError, turn
from tests.ollama_server import Odd, OllamaServer, ollama_server
from tests.waiting import until

ANSWER = "Leave is 30 days [1]. It is paid [2]."
ASK = [turn("user", "How much leave?")]


@pytest.fixture(scope="module")
def server() -> Iterator[OllamaServer]:
    with ollama_server(chat=lambda turns: ANSWER) as server:
        yield server


@pytest.fixture(params=["openai", "ollama"])
def model(server: OllamaServer, request: pytest.FixtureRequest) -> Iterator[ChatModel]:
    protocol: ChatProtocol = request.param
    model = ChatModel(
        server.url + "/v1" * (protocol == "openai"), model="m", protocol=protocol, timeout=5, context_tokens=4096
    )
    yield model
    model.close()


def test_pieces_are_the_answer(server: OllamaServer, model: ChatModel) -> None:
    reply = model.stream(ASK)
    pieces = list(reply)
    assert len(pieces) > 3
    assert "".join(pieces) == ANSWER
    assert not reply.cut
    assert server.requests[-1]["stream"] is True


def test_what_is_cut_for_its_length_says_so(model: ChatModel) -> None:
    reply = model.stream(ASK, max_tokens=2)
    assert "".join(reply) == ANSWER[:8]
    assert reply.cut


@pytest.mark.parametrize("odd", [Odd.ERROR_INSIDE, Odd.BREAKS_OFF, Odd.ENDS_EARLY])
def test_half_an_answer_comes_before_the_failure(server: OllamaServer, model: ChatModel, odd: Odd) -> None:
    server.misbehave = [odd]
    said = []
    reply = model.stream(ASK)
    server.misbehave = [odd]
    with pytest.raises(UnavailableError, match="fails: "):
        for piece in reply:
            said.append(piece)
    assert ANSWER.startswith("".join(said))
    assert said


@pytest.mark.parametrize(("status", "kind"), [(400, RefusedError), (429, RateLimitedError), (500, UnavailableError)])
def test_a_status_is_an_error_that_says_when_to_come_back(
    server: OllamaServer, model: ChatModel, status: int, kind: type[UnavailableError]
) -> None:
    server.misbehave = [status]
    with pytest.raises(kind, match=f"m answers {status}") as refused:
        next(model.stream(ASK))
    assert type(refused.value) is kind
    assert refused.value.retry_after == (7 if status == 429 else None)


@pytest.mark.parametrize("nonsense", ["<html>", '{"choices": "none"}', "[1]", "data: {"])
def test_nonsense_is_unavailable(server: OllamaServer, model: ChatModel, nonsense: str) -> None:
    server.misbehave = [nonsense]
    with pytest.raises(UnavailableError, match="fails: "):
        list(model.stream(ASK))


def test_nobody_there_and_too_slow_are_unavailable(server: OllamaServer, model: ChatModel) -> None:
    server.misbehave = [Odd.TRICKLES]
    with pytest.raises(UnavailableError, match="takes too long"):
        list(model.stream(ASK, timeout=0.1))
    server.misbehave = [3.0]
    with pytest.raises(UnavailableError, match="ReadTimeout"):
        list(model.stream(ASK, timeout=0.1))
    gone = ChatModel("http://127.0.0.1:1", model="m", timeout=1)
    with pytest.raises(UnavailableError, match="ConnectError"):
        list(gone.stream(ASK))
    gone.close()


@pytest.mark.parametrize("before", [Odd.TRICKLES, 3.0])
def test_closing_ends_the_wait_of_another_thread_and_the_servers_work(before: Odd | float) -> None:
    with ollama_server(chat=lambda turns: ANSWER) as server:
        model = ChatModel(server.url, model="m", protocol="ollama", timeout=60)
        server.misbehave = [before]
        reply = model.stream(ASK)
        ended = threading.Event()

        def read() -> None:
            with pytest.raises(UnavailableError):
                list(reply)
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        until(lambda: server.under_way == 1)
        reply.close()
        assert ended.wait(2), "the reader still waits"
        until(lambda: server.under_way == 0)
        assert "".join(model.stream(ASK)) == ANSWER
        model.close()


def test_what_is_closed_before_it_began_asks_nobody(server: OllamaServer, model: ChatModel) -> None:
    asked = len(server.requests)
    reply = model.stream(ASK)
    reply.close()
    assert list(reply) == []
    assert len(server.requests) == asked
