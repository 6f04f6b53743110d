"""Budgets of language models: what a call may cost is reserved, what it did cost noted, who nears a limit told of."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from processors.errors import UnavailableError
from processors.llm_stream import Usage
from processors.routing.ledger import UNIT, Account, Balance, Ledger
from schemas.settings import Llm, LlmModel, Spending

ALL = "all"
Period = Literal["day", "month"]
ALERTS = 80, 90, 100  # percent

_FORMATS: Mapping[Period, str] = {"day": "%Y-%m-%d", "month": "%Y-%m"}


class Limit(NamedTuple):
    """What ``name``, a model or all of them together, may spend in a period."""

    name: str
    period: Period
    amount: float


class Alert(NamedTuple):
    """A limit of which so many percent are spent, or so much (100) that a call was refused."""

    limit: Limit
    percent: int
    spent: float


class BudgetError(UnavailableError):
    """There is no money left for this call; ``retry_after`` is when the next period begins."""


@dataclass(frozen=True)
class Booking:
    """What was reserved, and where."""

    model: LlmModel
    accounts: Sequence[Account] = ()
    amount: int = 0


class Budgets:
    """May be shared by threads. A model that costs nothing never touches the ledger.

    Args:
        settings: Prices and limits.
        ledger: Where sums are kept.
        alert: Called once per limit, period and percentage, by whoever is the first to reach it.
        now: The time; periods are UTC's.
    """

    def __init__(
        self,
        settings: Llm,
        ledger: Ledger,
        *,
        alert: Callable[[Alert], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.limits = [*_limits(ALL, settings.budget)]
        self.limits += [limit for model in settings.models for limit in _limits(model.name, model.budget)]
        self._ledger = ledger
        self._alert = alert
        self._now = now
        self._seen: dict[Limit, tuple[Account, float]] = {}
        with suppress(UnavailableError):
            self.spent()

    def reserve(self, model: LlmModel, most: Usage) -> Booking:
        """Reserve what a call of so many tokens costs.

        Raises:
            BudgetError: A limit is in the way.
            UnavailableError: The ledger fails.
        """
        amount = cost(model, most)
        if not amount:
            return Booking(model)
        now = self._now()
        accounts = [_account(name, period, now) for name in (ALL, model.name) for period in _FORMATS]
        limits = {_account(limit.name, limit.period, now): limit for limit in self.limits}
        amounts = {account: round(limit.amount * UNIT) for account, limit in limits.items()}
        refused = self._ledger.reserve(accounts, amount, amounts)
        if refused is None:
            return Booking(model, accounts, amount)
        limit = limits[refused]
        self._note([limit], now, refused=limit)
        budget = "budget of all models" if limit.name == ALL else f"budget of {limit.name}"
        raise BudgetError(
            f"the {budget} for this {limit.period}, {limit.amount:g}, is used up",
            retry_after=(_next(limit.period, now) - now).total_seconds(),
        )

    def settle(self, booking: Booking, usage: Usage) -> float:
        """Note what a call did cost, and return it; where the ledger fails now, the reservation stays instead."""
        spent = cost(booking.model, usage)
        if booking.amount:
            with suppress(UnavailableError):
                self._ledger.settle(booking.accounts, reserved=booking.amount, spent=spent)
            self._note([limit for limit in self.limits if limit.name in (ALL, booking.model.name)], self._now())
        return spent / UNIT

    def spent(self, names: Sequence[str] = ()) -> dict[tuple[str, Period], Balance]:
        """The balances of these names in the present periods, and of those with limits.

        Raises:
            UnavailableError: The ledger fails.
        """
        now = self._now()
        wanted = list(dict.fromkeys([(limit.name, limit.period) for limit in self.limits]))
        wanted += [(name, period) for name in names for period in _FORMATS if (name, period) not in wanted]
        if not wanted:
            return {}
        accounts = [_account(name, period, now) for name, period in wanted]
        found = dict(zip(wanted, self._ledger.balances(accounts), strict=True))
        self._see(self.limits, found, now)
        return found

    def share(self, limit: Limit) -> float:
        """How much of it is spent (1: all), as far as this process knows."""
        account, spent = self._seen.get(limit, (None, 0.0))
        return _share(spent, limit) if account == _account(limit.name, limit.period, self._now()) else 0.0

    def _note(self, limits: Sequence[Limit], now: datetime, *, refused: Limit | None = None) -> None:
        """Look how much of these limits is spent, and tell whom it concerns, if the ledger can be read."""
        with suppress(UnavailableError):
            self._look(limits, now, refused)

    def _look(self, limits: Sequence[Limit], now: datetime, refused: Limit | None) -> None:
        accounts = [_account(limit.name, limit.period, now) for limit in limits]
        balances = self._ledger.balances(accounts)
        self._see(limits, {limit[:2]: one for limit, one in zip(limits, balances, strict=True)}, now)
        for limit, account, balance in zip(limits, accounts, balances, strict=True):
            percent = 100 if limit is refused else 100 * _share(balance.spent / UNIT, limit)
            for level in ALERTS:
                if percent >= level and self._ledger.claim(account, level):
                    self._alert(Alert(limit, level, balance.spent / UNIT))

    def _see(self, limits: Sequence[Limit], balances: Mapping[tuple[str, Period], Balance], now: datetime) -> None:
        for limit in limits:
            account = _account(limit.name, limit.period, now)
            self._seen[limit] = account, balances[limit.name, limit.period].spent / UNIT


def cost(model: LlmModel, usage: Usage) -> int:
    """In billionths, rounded up; prices are per million tokens."""
    per_token = UNIT // 1_000_000
    return math.ceil((usage.prompt * model.input_price + usage.completion * model.output_price) * per_token)


def _share(spent: float, limit: Limit) -> float:
    return spent / limit.amount if limit.amount else 1.0


def _limits(name: str, spending: Spending) -> list[Limit]:
    amounts: Mapping[Period, float | None] = {"day": spending.daily, "month": spending.monthly}
    return [Limit(name, period, amount) for period, amount in amounts.items() if amount is not None]


def _account(name: str, period: Period, now: datetime) -> Account:
    return Account(now.strftime(_FORMATS[period]), name)


def _next(period: Period, now: datetime) -> datetime:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1) if period == "day" else (today.replace(day=1) + timedelta(days=32)).replace(day=1)
