"""What language models may cost: budgets, and the ledger that restarts and other processes find."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import build
from processors.errors import UnavailableError
from processors.llm_stream import Usage
from processors.routing.budgets import BudgetError, Budgets, cost
from processors.routing.ledger import UNIT, Account, Balance, Ledger, SqliteLedger
from processors.routing.overview import overview
from processors.routing.redis_ledger import RedisLedger
from processors.routing.router import Router
from schemas.settings import Llm, LlmModel, Settings, Spending
from tests import redis_server
from tests.ollama_server import ollama_server
from tests.routing_bench import ASK, SAID, Seen, bench

DAY, MONTH = Account("2026-11-22", "all"), Account("2026-11", "all")


def test_budgets_stop_what_costs_and_survive_restarts(tmp_path: Path) -> None:
    limit = {"daily": 0.1}  # an answer costs 0.0085 and reserves 0.0216
    with bench(tmp_path, budget=limit) as both:
        who = [both.ask() for _ in range(8)]
        assert who == ["paid"] * 8
        assert both.seen.alerts == []
    with bench(tmp_path, budget=limit) as both:
        assert both.seen.share(both.seen.limits[0]) == pytest.approx(0.68)
        assert [both.ask() for _ in range(4)] == ["paid", "paid", "free", "free"]
        assert both.seen.alerts == [("all", "day", 80), ("all", "day", 90), ("all", "day", 100)]
        assert both.seen.outcomes[2:4] == [("paid", "budget"), ("free", "answered")]
        [budget] = overview(both.router).budgets
        assert [budget.spent, budget.reserved, budget.left] == pytest.approx([0.085, 0.0, 0.015])
    with bench(tmp_path, budget=limit) as both:
        assert both.ask() == "free"
        assert both.seen.alerts == []  # once is enough


def test_calls_at_the_same_time_do_not_pass_a_limit_together(tmp_path: Path) -> None:
    with bench(tmp_path, budget={"daily": 0.1}) as both:
        with ThreadPoolExecutor(12) as threads:
            who = list(threads.map(lambda _: both.ask(), range(40)))
        spent = both.router.budgets.spent()["all", "day"]
        assert spent.reserved == 0
        assert spent.spent == who.count("paid") * 85 * UNIT // 10_000 <= 0.1 * UNIT
        assert who.count("paid") >= 4  # as many as may reserve at once
        assert both.seen.alerts == sorted(set(both.seen.alerts))


def test_a_model_may_have_a_budget_of_its_own(tmp_path: Path) -> None:
    with bench(tmp_path, budget={"monthly": 100.0}) as both:
        both.ask()
    with bench(tmp_path, spending={"daily": 0.02}) as both:  # an answer reserves 0.0216
        assert both.ask() == "free"
        assert both.seen.alerts == [("paid", "day", percent) for percent in (80, 90, 100)]


def test_where_nobody_may_be_paid_it_says_until_when(tmp_path: Path) -> None:
    llm = Llm.model_validate(
        {"models": [{"name": "paid", "url": "http://127.0.0.1:1", "output_price": 1.0}], "budget": {"monthly": 0}}
    )
    seen = Seen()
    router = Router(llm, task="answers", ledger=SqliteLedger(tmp_path / "l"), observe=seen)
    with pytest.raises(BudgetError, match="budget of all models for this month, 0, is used up") as refused:
        router.ask(ASK)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 31 * 86_400
    assert seen.alerts == [("all", "month", percent) for percent in (80, 90, 100)]
    router.close()


def test_without_its_ledger_nobody_is_paid(tmp_path: Path) -> None:
    (tmp_path / "llm.sqlite").mkdir()
    with bench(tmp_path, budget={"daily": 1.0}) as both:
        assert both.ask() == "free"
        assert both.seen.outcomes[0] == ("paid", "failed")
        assert both.router.models[0].breaker.state == "closed"


def test_days_and_months_begin_anew_and_a_late_answer_is_its_own_days(tmp_path: Path) -> None:
    now = [datetime(2026, 11, 30, 23, 59, tzinfo=UTC)]
    one = LlmModel(name="m", url="u", output_price=1.0, budget=Spending(daily=1.0, monthly=10.0))
    budgets = Budgets(Llm(models=(one,)), SqliteLedger(tmp_path / "l"), alert=lambda alert: None, now=lambda: now[0])
    booking = budgets.reserve(one, Usage(0, 900_000))
    with pytest.raises(BudgetError, match="budget of m for this day") as refused:
        budgets.reserve(one, Usage(0, 200_000))
    assert refused.value.retry_after == 60
    now[0] = datetime(2026, 12, 1, tzinfo=UTC)
    assert budgets.settle(booking, Usage(0, 800_000)) == pytest.approx(0.8)
    assert [balance.spent for balance in budgets.spent().values()] == [0, 0]
    assert [budgets.share(limit) for limit in budgets.limits] == [0.0, 0.0]
    budgets.reserve(one, Usage(0, 900_000))
    now[0] = datetime(2026, 11, 30, tzinfo=UTC)
    assert [balance.spent for balance in budgets.spent().values()] == [8 * UNIT // 10] * 2


def test_prices_are_per_million_tokens() -> None:
    priced = LlmModel(name="m", url="u", input_price=0.15, output_price=0.6)
    assert cost(priced, Usage(1_000_000, 0)) == 15 * UNIT // 100
    assert cost(priced, Usage(1, 1)) == 750
    assert cost(LlmModel(name="m", url="u"), Usage(10, 10)) == 0


_KINDS = ["sqlite", *(["redis"] if redis_server.IS_THERE else [])]


def _ledger(kind: str, file: Path) -> Ledger:
    return SqliteLedger(file) if kind == "sqlite" else RedisLedger(redis_server.shared_url())


@pytest.fixture(params=_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        redis_server.emptied()
    return str(request.param)


_CALLS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 50), st.booleans(), st.booleans()), max_size=25)


@settings(max_examples=15, deadline=None)
@given(calls=_CALLS, limit=st.integers(0, 200))
@pytest.mark.parametrize("of", _KINDS)
def test_a_limit_is_passed_by_no_more_than_a_call_costs_above_its_reservation(
    of: str, calls: list[tuple[int, int, bool, bool]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Calls that overlap, end in any order or never, cost less or more than reserved, across restarts."""
    if of == "redis":
        redis_server.emptied()
    file = tmp_path_factory.mktemp("ledger") / "l"
    open_: list[int] = []
    ledger, spent, excess = _ledger(of, file), 0, 0
    for amount, costs, ends, restarts in calls:
        taken = spent + sum(open_)
        refused = ledger.reserve([DAY, MONTH], amount, {MONTH: limit})
        assert refused == (MONTH if taken + amount > limit else None)
        if refused is None:
            open_.append(amount)
        if ends and open_:
            reserved = open_.pop(0)
            ledger.settle([DAY, MONTH], reserved=reserved, spent=costs)
            spent, excess = spent + costs, excess + max(0, costs - reserved)
        if restarts:
            ledger = _ledger(of, file)
        assert ledger.balances([DAY, MONTH]) == [Balance(spent, sum(open_))] * 2
        assert spent + sum(open_) <= limit + excess


def test_an_account_is_claimed_once(kind: str, tmp_path: Path) -> None:
    ledger = _ledger(kind, tmp_path / "l")
    assert [ledger.claim(DAY, 80), ledger.claim(DAY, 80), ledger.claim(DAY, 90), ledger.claim(MONTH, 80)] == [
        True,
        False,
        True,
        True,
    ]


_PROCESS = """
import sys
from pathlib import Path
from processors.routing.ledger import Account, SqliteLedger
from processors.routing.redis_ledger import RedisLedger
kind, where = sys.argv[1:]
ledger = SqliteLedger(Path(where)) if kind == "sqlite" else RedisLedger(where)
account = Account("2026-11", "all")
taken = sum(ledger.reserve([account], 1, {account: 60}) is None for _ in range(40))
ledger.settle([account], reserved=taken, spent=taken)
sys.stdout.write(str(taken))
"""


def test_processes_share_a_budget(kind: str, tmp_path: Path) -> None:
    where = str(tmp_path / "l") if kind == "sqlite" else redis_server.shared_url()
    command = [sys.executable, "-c", _PROCESS, kind, where]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(taken) == 60
    assert _ledger(kind, tmp_path / "l").balances([MONTH]) == [Balance(60, 0)]


def test_a_year_is_kept(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l")
    old = [Account("2025-10-31", "all"), Account("2025-11", "all"), Account("2025-10", "m")]
    for account in old:
        assert ledger.reserve([account], 1, {}) is None
    assert ledger.reserve([DAY, MONTH], 1, {}) is None
    assert ledger.balances(old) == [Balance(), Balance(0, 1), Balance()]


def test_a_ledger_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("no database" * 100)
    for broken in (SqliteLedger(tmp_path / "l"), RedisLedger("redis://127.0.0.1:1/0")):
        with pytest.raises(UnavailableError, match="ledger of language models fails"):
            broken.claim(DAY, 80)


def test_extraction_and_answers_spend_from_one_purse(tmp_path: Path) -> None:
    with ollama_server(chat=lambda turns: SAID) as server:
        paid = {"name": "paid", "url": f"{server.url}/v1", "output_price": 1000.0}
        made = Settings.model_validate(
            {
                "data_dir": tmp_path,
                "llm": {"models": [paid], "budget": {"daily": 3.0}, "attempts": 1},
                "extraction": {"pipeline": "llm_single_pass", "names": "rules", "relations": "none"},
            }
        )
        seen = Seen()
        extractor = build.build_extractor(made, observe_llm=seen)
        [found] = extractor.extract(["Ada Lovelace was born in London in 1815."])
        assert found.pipeline == "rules+none"  # the model's answer is none, twice
        assert len(server.requests) == 2
        answers = build.build_chat(made)
        assert answers is not None
        shared = answers.budgets.spent()["all", "day"]
        assert shared.spent == round(sum(money for _, _, money in seen.used_) * UNIT) > 0
        with pytest.raises(BudgetError):
            answers.ask(ASK, max_tokens=3000)
        answers.close()
        poor = made.model_copy(update={"llm": made.llm.model_copy(update={"budget": Spending(daily=0.1)})})
        [found] = build.build_extractor(poor, observe_llm=seen).extract(["Ada Lovelace was born in London in 1815."])
        assert "budget of all models" in found.degraded["single_pass"]
        assert seen.outcomes[-1] == ("paid", "budget")
        assert len(server.requests) == 2
