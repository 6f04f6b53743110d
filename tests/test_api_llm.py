"""Several language models behind the API: answers, what is told of them, and the proxy."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.model_metrics import LlmMetrics
from deploy.running import Running, announce
from processors.routing.ledger import SqliteLedger
from processors.routing.overview import overview
from processors.routing.router import Router
from schemas.settings import Answers, Llm
from tests.answer_shelf import shelved
from tests.api_server import Stack, serving
from tests.ollama_server import Odd, OllamaServer, ollama_server
from tests.waiting import until

LEAVE = "How many days of leave does an employee have?"
SAID = "Every employee has 30 days of leave per year [1]."
PROXY = "/api/v1/llm/chat/completions"
HELLO = {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]}


@contextmanager
def served(
    folder: Path, *, is_alone: bool = False, **budget: float
) -> Iterator[tuple[Stack, OllamaServer, OllamaServer]]:
    """An API over a good model that costs money, and a free one."""
    with ExitStack() as closing:
        paid, free = (closing.enter_context(ollama_server(chat=lambda turns: SAID)) for _ in range(2))
        models = [
            {"name": "paid", "url": f"{paid.url}/v1", "input_price": 1.0, "output_price": 1000.0, "quality": 0.9},
            {"name": "free", "url": free.url, "protocol": "ollama"},
        ]
        models = models[: 1 if is_alone else 2]
        llm = Llm.model_validate({"models": models, "strategy": "quality", "budget": budget})
        router = Router(llm, task="answers", ledger=SqliteLedger(folder / "llm.sqlite"), observe=LlmMetrics())
        closing.callback(router.close)

        def change(stack: Stack) -> None:
            shelved(stack)
            stack.chat, stack.language_models = router, partial(overview, router)

        answers = Answers(cache_entries=0, max_tokens=20)
        yield closing.enter_context(serving(answers=answers, change=change)), paid, free


def ask(stack: Stack) -> dict[str, Any]:
    response = stack.http.post("/api/v1/chat/", json={"question": LEAVE, "search": {"explain": True}})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_an_answer_says_who_gave_it_and_who_was_thought_of(tmp_path: Path) -> None:
    with served(tmp_path) as (stack, paid, _):
        answer = ask(stack)
        assert (answer["outcome"], answer["model"]) == ("generated", "paid")
        paid.misbehave = [500]
        answer = ask(stack)
        assert (answer["outcome"], answer["model"]) == ("generated", "free")
        assert answer["route"] == [
            {"model": "paid", "outcome": "failed"},
            {"model": "free", "outcome": "answered"},
        ]
        plain = stack.http.post("/api/v1/chat/", json={"question": LEAVE}).json()
        assert (plain["model"], plain["route"]) == ("paid", None)
        [passed_over] = [line for line in stack.logs if line["event"] == "llm-passed-over"]
        assert (passed_over["model"], passed_over["outcome"]) == ("paid", "failed")


def test_a_budget_moves_answers_to_who_costs_nothing_and_then_to_quotations(tmp_path: Path) -> None:
    with served(tmp_path, daily=0.03, monthly=10.0) as (stack, _, free):
        who = [ask(stack)["model"] for _ in range(3)]  # each reserves 0.02 and a little, and costs 0.013 and less
        assert who == ["paid", "free", "free"]
        metrics = stack.http.get("/metrics").text
        assert 'aegis_llm_budget_alerts_total{model="all",percent="100",period="day"} 1.0' in metrics
        assert 'aegis_llm_budget_ratio{model="all",period="day"} 0.4' in metrics
        assert [line["percent"] for line in stack.logs if line["event"] == "llm-budget"] == [80, 90, 100]
        free.misbehave = [500]
        answer = ask(stack)
        assert (answer["outcome"], answer["model"]) == ("extractive", None)
        assert [step["outcome"] for step in answer["route"]] == ["budget", "failed"]
        known = stack.http.get("/api/v1/llm").json()
        assert [(one["name"], one["state"]) for one in known["models"]] == [("paid", "ready"), ("free", "ready")]
        day, month = known["budgets"]
        assert (day["name"], day["period"], day["limit"], day["reserved"]) == ("all", "day", 0.03, 0)
        assert 0.01 < day["spent"] == month["spent"] == known["models"][0]["spent_today"] < 0.02


def test_where_only_money_is_missing_the_answer_says_that(tmp_path: Path) -> None:
    with served(tmp_path, is_alone=True, daily=0.0) as (stack, _, _):
        for _ in range(7):  # which opens no breaker
            answer = ask(stack)
        assert answer["outcome"] == "extractive"
        assert answer["notes"] == ["The budget for language models is used up; this is quoted instead."]
        assert stack.http.get("/health").json()["breakers"]["llm"] == "closed"
        refused = stack.http.post(PROXY, json=HELLO)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:aegis:problem:budget-used-up")
        assert 0 < int(refused.headers["Retry-After"]) <= 86_400


def test_the_proxy_speaks_as_openais_server_does(tmp_path: Path) -> None:
    with served(tmp_path) as (stack, paid, _):
        answer = stack.http.post(PROXY, json={**HELLO, "model": "gpt-5", "temperature": 1, "max_tokens": 3}).json()
        assert (answer["object"], answer["model"]) == ("chat.completion", "paid")
        assert answer["choices"] == [
            {"index": 0, "message": {"role": "assistant", "content": SAID[:12]}, "finish_reason": "length"}
        ]
        assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
        assert [turn["role"] for turn in paid.requests[0]["messages"]] == ["system", "user"]
        *chunks, end = _chunks(stack)
        assert end == "[DONE]"
        bodies = [json.loads(chunk) for chunk in chunks]
        assert "".join(body["choices"][0]["delta"].get("content", "") for body in bodies) == SAID
        assert {body["model"] for body in bodies} == {"paid"}
        assert [body["choices"][0]["finish_reason"] for body in bodies][-1] == "stop"


def test_the_proxy_says_what_went_wrong(tmp_path: Path) -> None:
    with served(tmp_path) as (stack, paid, free):
        for problem, status in ((400, 422), (500, 503)):
            paid.misbehave, free.misbehave = [problem], [problem]
            assert stack.http.post(PROXY, json=HELLO).status_code == status
        paid.misbehave = [Odd.ERROR_INSIDE]
        *_, failed, end = _chunks(stack)
        assert json.loads(failed)["error"]["status"] == 503
        assert end == "[DONE]"
        assert stack.http.post(PROXY, json={"messages": []}).status_code == 422


def _chunks(stack: Stack) -> list[str]:
    response = stack.http.post(PROXY, json={**HELLO, "stream": True})
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


def test_leaving_a_chat_stops_the_model_and_settles_what_it_cost(tmp_path: Path) -> None:
    with served(tmp_path, daily=1.0) as (stack, paid, _):
        paid.misbehave = [Odd.TRICKLES]
        with stack.http.stream("POST", PROXY, json={**HELLO, "stream": True}) as response:
            next(response.iter_lines())
        until(lambda: paid.under_way == 0)

        def settled() -> bool:
            [budget] = stack.http.get("/api/v1/llm").json()["budgets"]
            return bool(budget["reserved"] == 0 and budget["spent"] > 0)

        until(settled)


def test_without_a_language_model_there_is_nothing_to_tell() -> None:
    with serving() as stack:
        for response in (stack.http.get("/api/v1/llm"), stack.http.post(PROXY, json=HELLO)):
            assert (response.status_code, response.json()["type"]) == (501, "urn:aegis:problem:no-language-model")


@pytest.mark.parametrize(
    ("grant", "asks", "talks"),
    [
        ({"scopes": ["read"]}, 200, 403),
        ({"scopes": ["read", "write"]}, 200, 200),
        ({"scopes": ["read", "write"], "tenant": "acme"}, 403, 403),
    ],
)
def test_money_is_not_for_everybody(grant: dict[str, Any], asks: int, talks: int, tmp_path: Path) -> None:
    with served(tmp_path) as (stack, _, _):
        headers = stack.token(**grant)
        assert stack.http.get("/api/v1/llm", headers=headers).status_code == asks
        assert stack.http.post(PROXY, json=HELLO, headers=headers).status_code == talks


def test_the_command_shows_models_and_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    with served(tmp_path, monthly=10.0) as (stack, _, _):
        ask(stack)
        running = Running(bootstrap_servers="", api_url=f"http://127.0.0.1:{stack.port}", pid=os.getpid())
        announce(tmp_path, running)
        shown = CliRunner().invoke(app, ["llm"])
        assert shown.exit_code == 0, shown.output
        assert "Asked by quality" in shown.output
        assert "month" in shown.output
        told = json.loads(CliRunner().invoke(app, ["llm", "--json"]).stdout)
        assert [one["name"] for one in told["models"]] == ["paid", "free"]
        assert told["budgets"][0]["limit"] == 10.0
