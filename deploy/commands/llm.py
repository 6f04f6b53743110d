"""`aegis llm`: the language models, what they cost, and what may still be spent."""

from deploy.commands.output import AsJson, api_client, connected, out, print_json, seconds, table
from processors.routing.overview import Overview

_TIMEOUT = 20.0


def llm(as_json: AsJson = False) -> None:
    """Language models in the order in which they are asked, and budgets (days and months are UTC's)."""
    with connected() as (settings, running), api_client(settings, running, timeout=_TIMEOUT) as client:
        found = Overview.model_validate_json(client.get("/api/v1/llm").raise_for_status().content)
    if as_json:
        print_json(found)
        return
    models = [
        (
            one.name,
            one.state,
            f"{one.input_price:g} / {one.output_price:g}",
            one.quality,
            "–" if one.first_token_seconds is None else seconds(one.first_token_seconds),
            round(one.spent_today, 4),
            round(one.spent_this_month, 4),
        )
        for one in found.models
    ]
    columns = ["model", "state", "price in / out", "quality", "first token", "spent today", "this month"]
    out.print(table(columns, models, title=f"Asked by {found.strategy}"))
    if found.budgets:
        budgets = [(one.name, one.period, one.limit, round(one.spent, 4), round(one.left, 4)) for one in found.budgets]
        out.print(table(["budget of", "per", "limit", "spent", "left"], budgets))
