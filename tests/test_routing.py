"""Several language models: who is asked, and what happens where they fail."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processors import build
from processors.errors import UnavailableError
from processors.llm import RateLimitedError, RefusedError
from processors.llm_stream import Usage
from processors.routing.ledger import Balance, SqliteLedger
from processors.routing.model import Model
from processors.routing.overview import overview
from processors.routing.router import Router
from processors.routing.strategy import Traits, ranked
from schemas.settings import Llm, LlmModel, Settings, settings_from_environment
from tests.ollama_server import Odd, ollama_server
from tests.routing_bench import ASK, SAID, Bench, bench
from tests.waiting import until


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("strategy", "weights", "order"),
    [
        ("cost", {}, "local small large"),
        ("quality", {}, "large small local"),
        ("latency", {}, "small large local"),
        ("hybrid", {}, "small large local"),
        ("hybrid", {"quality": 10.0}, "large small local"),
        ("hybrid", {"cost": 30.0}, "local small large"),
    ],
)
def test_a_strategy_is_an_order(strategy: str, weights: dict[str, float], order: str) -> None:
    traits = [
        ("large", Traits(cost=0.02, quality=1.0, seconds=1.0)),
        ("local", Traits(cost=0.0, quality=0.4, seconds=3.0)),
        ("small", Traits(cost=0.001, quality=0.7, seconds=0.5)),
    ]
    assert ranked(traits, Llm.model_validate({"strategy": strategy, "weights": weights})) == order.split()


def test_the_first_choice_answers_and_the_server_counts(both: Bench) -> None:
    reply = both.router.stream(ASK, max_tokens=20)
    assert "".join(reply) == SAID
    assert (reply.model, reply.usage, reply.cut) == ("paid", Usage(5, 8), False)
    assert [tuple(step) for step in reply.route] == [("paid", "answered")]
    [(model, usage, money)] = both.seen.used_
    assert (model, usage) == ("paid", Usage(5, 8))
    assert money == pytest.approx(0.0085)
    assert both.paid.requests[0]["stream_options"] == {"include_usage": True}
    assert both.free.requests == []
    reply.close()


def test_what_the_server_does_not_count_is_estimated(both: Bench) -> None:
    both.paid.misbehave = ['data: {"choices": [{"delta": {"content": "abcdef"}}]}\n\ndata: [DONE]\n\n']
    assert "".join(both.router.stream(ASK, max_tokens=20)) == "abcdef"
    [(_, usage, money)] = both.seen.used_
    assert usage == Usage(16, 2)  # 24 bytes in threes, and a turn's own; 6 bytes in threes
    assert money == pytest.approx((16 * 100 + 2 * 1000) / 1e6)


@pytest.mark.parametrize("usage", ["7", '{"prompt_tokens": null}', '{"prompt_tokens": 1, "completion_tokens": -1}'])
def test_counts_that_are_none_spoil_no_answer(both: Bench, usage: str) -> None:
    chunk = f'{{"choices": [{{"delta": {{"content": "abc"}}}}], "usage": {usage}}}'
    both.paid.misbehave = [f"data: {chunk}\n\ndata: [DONE]\n\n"]
    assert "".join(both.router.stream(ASK, max_tokens=20)) == "abc"
    assert both.seen.used_[0][1] == Usage(16, 1)


def test_a_model_that_says_nothing_has_answered(both: Bench) -> None:
    both.paid.misbehave = ["data: [DONE]\n\n"]
    reply = both.router.stream(ASK, max_tokens=20)
    assert list(reply) == []
    assert (reply.model, both.free.requests) == ("paid", [])


def test_an_answer_can_be_asked_for_whole_and_in_a_shape(both: Bench) -> None:
    assert both.router.ask(ASK, schema={"type": "object"}) == SAID
    assert both.paid.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert both.paid.requests[0]["max_tokens"] == both.router.settings.context_tokens // 4  # or it might cost anything


@pytest.mark.parametrize("problem", [500, 503, "<html>", Odd.ENDS_EARLY])
def test_who_fails_before_the_first_word_is_replaced(both: Bench, problem: Any) -> None:
    if problem is Odd.ENDS_EARLY:
        problem = "data: [1]"
    both.paid.misbehave = [problem]
    assert both.ask() == "free"
    assert both.seen.outcomes == [("paid", "failed"), ("free", "answered")]


def test_an_outage_is_gone_around_and_after_five_failures_not_even_tried(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with bench(tmp_path, url=f"http://127.0.0.1:{port}/v1", budget={"daily": 1.0}) as both:
        assert [both.ask() for _ in range(6)] == ["free"] * 6
        assert [outcome for model, outcome in both.seen.outcomes if model == "paid"] == ["failed"] * 5 + ["breaker"]
        assert both.router.budgets.spent()["all", "day"] == Balance()  # nobody was reached, nothing is owed
        assert overview(both.router).models[0].state == "open"


def test_429_rests_a_model_for_as_long_as_it_asks(both: Bench) -> None:
    both.paid.misbehave = [429]
    assert [both.ask(), both.ask()] == ["free", "free"]
    assert both.asked == (1, 2)
    [paid, _] = both.router.models
    assert 0 < paid.free_in() <= 7
    assert paid.breaker.state == "closed"
    assert overview(both.router).models[0].state == "resting"


def test_where_only_rates_are_in_the_way_a_question_waits(both: Bench) -> None:
    both.paid.retry_after = both.free.retry_after = 1
    both.paid.misbehave, both.free.misbehave = [429], [429]
    reply = both.router.stream(ASK, max_tokens=20, timeout=20)
    assert "".join(reply) == SAID
    assert [step.outcome for step in reply.route] == ["rate-limited", "rate-limited", "answered"]


def test_but_not_longer_than_half_its_time(both: Bench) -> None:
    both.paid.misbehave, both.free.misbehave = [429], [429]
    with pytest.raises(RateLimitedError, match="paid") as refused:
        both.ask(timeout=3)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 7


def test_requests_per_minute_are_kept(tmp_path: Path) -> None:
    with bench(tmp_path, requests_per_minute=2) as both:
        assert [both.ask() for _ in range(3)] == ["paid", "paid", "free"]
        assert both.seen.outcomes[2] == ("paid", "rate-limited")


def test_who_is_silent_has_half_of_the_time(both: Bench) -> None:
    both.paid.misbehave = [30.0]
    assert both.ask(timeout=1.6) == "free"
    assert both.seen.outcomes[0] == ("paid", "failed")
    assert both.seen.used_[0][1] == Usage(16, 0)  # it may have read the question, and asks to be paid


def test_nobody_goes_on_with_anothers_answer(both: Bench) -> None:
    both.paid.misbehave = [Odd.BREAKS_OFF]
    reply, said = both.router.stream(ASK, max_tokens=20), ""
    with pytest.raises(UnavailableError, match="fails: "):
        for piece in reply:
            said += piece
    assert SAID.startswith(said)
    assert said
    assert both.free.requests == []
    assert both.seen.used_[0][1].completion > 0  # what was said is paid for
    assert both.seen.outcomes == [("paid", "answered"), ("paid", "failed")]


def test_a_question_that_one_refuses_another_may_take(both: Bench) -> None:
    both.paid.misbehave = [400]
    assert both.ask() == "free"
    both.paid.misbehave, both.free.misbehave = [413], [422]
    with pytest.raises(RefusedError):
        both.ask()
    assert [model.breaker.state for model in both.router.models] == ["closed", "closed"]


def test_where_all_fail_it_says_how_each_did(both: Bench) -> None:
    both.paid.misbehave, both.free.misbehave = [500], [429]
    with pytest.raises(UnavailableError, match=r"500.*; .*429") as failed:
        both.ask(timeout=3)
    assert type(failed.value) is UnavailableError


def test_leaving_stops_the_server_and_pays_for_what_was_said(both: Bench) -> None:
    both.paid.misbehave = [Odd.TRICKLES]
    reply = both.router.stream(ASK, max_tokens=20, timeout=30)
    next(reply)
    reader = threading.Thread(target=lambda: _read(reply))
    reader.start()
    reply.close()
    reader.join(10)
    assert not reader.is_alive()
    until(lambda: both.paid.under_way == 0)
    until(lambda: len(both.seen.used_) == 1)
    balances = both.router.budgets.spent(["paid"])
    assert balances["paid", "day"].reserved == 0
    assert balances["paid", "day"].spent > 0
    assert both.router.models[0].breaker.state == "closed"


def _read(reply: Iterator[str]) -> None:
    with pytest.raises((UnavailableError, StopIteration)):
        while True:
            next(reply)


def test_a_waiting_question_can_be_left(both: Bench) -> None:
    both.paid.misbehave, both.free.misbehave = [429], [429]
    reply = both.router.stream(ASK, timeout=100)
    reader = threading.Thread(target=lambda: _read(reply))
    reader.start()
    until(lambda: both.asked == (1, 1))
    reply.close()
    reader.join(5)
    assert not reader.is_alive()


def test_the_mean_of_the_first_words_fades() -> None:
    now = [1000.0]
    model = Model(LlmModel(name="m", url="http://127.0.0.1:1"), Llm(), clock=lambda: now[0])
    assert model.seconds() == 0.0
    model.heard(4.0)
    model.heard(2.0)
    assert model.seconds() == pytest.approx(3.4)
    now[0] += 600
    assert model.seconds() == pytest.approx(1.7)
    model.chat.close()


def test_the_example_of_the_documentation_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/routing.md").read_text()
    monkeypatch.setenv("AEGIS_LLM__MODELS", page.split("```json\n")[1].split("```")[0])
    monkeypatch.setenv("AEGIS_LLM__BUDGET__DAILY", "2.5")
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    made = settings_from_environment()
    assert [one.name for one in made.llm.models_for("extraction")] == ["gemma3:4b", "cloud-small"]
    router = build.build_chat(made)
    assert router is not None
    assert [one.name for one in router.models] == ["gemma3:4b", "cloud-small", "cloud-large"]
    assert [tuple(limit) for limit in router.budgets.limits] == [
        ("all", "day", 2.5),
        ("cloud-large", "day", 5.0),
        ("cloud-large", "month", 60.0),
    ]
    assert "sk-" not in json.dumps(made.model_dump(mode="json")) + repr(made)
    router.close()


def test_one_model_is_a_router_of_one(tmp_path: Path) -> None:
    assert build.build_chat(Settings()) is None
    with ollama_server(chat=lambda turns: SAID) as server:
        router = build.build_chat(
            Settings.model_validate(
                {"data_dir": tmp_path, "llm": {"url": server.url, "model": "g m", "protocol": "ollama"}}
            )
        )
        assert router is not None
        assert (router.name, router.ask(ASK)) == ("g m", SAID)
        server.misbehave = [500]
        with pytest.raises(UnavailableError, match="g m answers 500"):
            router.ask(ASK)
        router.close()
    assert not list(tmp_path.iterdir())  # what costs nothing needs no ledger


@pytest.mark.parametrize(
    ("llm", "why"),
    [
        ({"models": [{"name": "a", "url": "u"}], "url": "u", "model": "m"}, "in place of"),
        ({"models": [{"name": "a", "url": "u"}, {"name": "a", "url": "v"}]}, "a name of its own"),
        ({"models": [{"name": "all", "url": "u"}]}, "none is called all"),
        ({"models": [{"name": "a", "url": "u", "price": 1}]}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(llm: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Llm.model_validate(llm)


def test_a_task_needs_a_model_that_is_for_it() -> None:
    llm = {"models": [{"name": "a", "url": "u", "tasks": ["extraction"]}]}
    assert build.build_chat(Settings.model_validate({"llm": llm})) is None
    with pytest.raises(ValueError, match="a model for reranking in AEGIS_LLM__MODELS"):
        build.build_reranker(Settings.model_validate({"llm": llm, "reranking": {"backend": "llm"}}))


def test_a_chat_without_another_to_ask_is_always_asked(tmp_path: Path) -> None:
    with ollama_server(chat=lambda turns: SAID) as server:
        llm = Llm.model_validate({"models": [{"name": "m", "url": server.url, "protocol": "ollama"}]})
        router = Router(llm, task="answers", ledger=SqliteLedger(tmp_path / "l"))
        for problem in [429, *[500] * 6]:
            server.misbehave = [problem]
            with pytest.raises(UnavailableError, match=str(problem)):
                router.ask(ASK)
        assert router.ask(ASK) == SAID
        router.close()
