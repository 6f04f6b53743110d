"""`aegis mcp`: the system as tools for language models."""

from typing import Annotated

import typer

from api.client import Aegis
from deploy.commands.output import err, load_settings, reported
from deploy.running import find

_PATIENCE = 20.0  # a model waits


def mcp(
    url: Annotated[str | None, typer.Option(help="The API; without it, the one that runs on the data folder.")] = None,
    key: Annotated[str | None, typer.Option(envvar="AEGIS_KEY", help="The API's key, where it asks for one.")] = None,
    http: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Serve streamable HTTP on this port of 127.0.0.1, not stdio.")
    ] = None,
) -> None:
    """Serve search, ask, publish, status and entities by the Model Context Protocol."""
    from deploy.mcp_tools import server

    with reported(), Aegis(url or find(load_settings()).api_url, key, patience=_PATIENCE) as aegis:
        tools = server(aegis)
        if http is None:
            tools.run()
        else:
            err.print(f"MCP on http://127.0.0.1:{http}/mcp")
            tools.run("streamable-http", host="127.0.0.1", port=http)
