"""What a router knows and what was spent, for people."""

from typing import Literal

from pydantic import BaseModel, Field

from processors.llm_stream import Usage
from processors.routing.budgets import Period
from processors.routing.ledger import UNIT
from processors.routing.model import Model
from processors.routing.router import Router

_USUAL = Usage(2000, 500)


class ModelState(BaseModel):
    """A language model. Prices are per million tokens; ``rests_seconds`` and ``first_token_seconds`` this process's."""

    name: str
    state: Literal["ready", "resting", "open", "half-open"]
    rests_seconds: float
    first_token_seconds: float | None = Field(description="A mean that fades; null before the first answer.")
    input_price: float
    output_price: float
    quality: float
    spent_today: float
    spent_this_month: float


class BudgetState(BaseModel):
    """A budget; what calls under way may cost is ``reserved``."""

    name: str = Field(description="A model, or all.")
    period: Period
    limit: float
    spent: float
    reserved: float
    left: float


class Overview(BaseModel):
    """The language models that answer questions, in the order in which one of usual length would ask them."""

    strategy: str
    models: list[ModelState]
    budgets: list[BudgetState]


def overview(router: Router) -> Overview:
    """How its models and budgets stand now.

    Raises:
        UnavailableError: The ledger fails.
    """
    priced = [one.name for one in router.models if one.settings.input_price or one.settings.output_price]
    balances = router.budgets.spent(priced)

    def spent(name: str, period: Period) -> float:
        return balances[name, period].spent / UNIT if (name, period) in balances else 0.0

    budgets = []
    for limit in router.budgets.limits:
        balance = balances[limit.name, limit.period]
        budgets.append(
            BudgetState(
                name=limit.name,
                period=limit.period,
                limit=limit.amount,
                spent=balance.spent / UNIT,
                reserved=balance.reserved / UNIT,
                left=max(0.0, limit.amount - sum(balance) / UNIT),
            )
        )
    models = [
        ModelState(
            name=model.name,
            state=_state(model),
            rests_seconds=model.free_in(),
            first_token_seconds=model.seconds() or None,
            input_price=model.settings.input_price,
            output_price=model.settings.output_price,
            quality=model.settings.quality,
            spent_today=spent(model.name, "day"),
            spent_this_month=spent(model.name, "month"),
        )
        for model in router.ranked(_USUAL)
    ]
    return Overview(strategy=router.settings.strategy, models=models, budgets=budgets)


def _state(model: Model) -> Literal["ready", "resting", "open", "half-open"]:
    if model.breaker.state != "closed":
        return model.breaker.state
    return "resting" if model.free_in() else "ready"
