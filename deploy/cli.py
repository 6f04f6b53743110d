"""The `aegis` command."""

import typer

from deploy.commands import (
    ask,
    backup,
    capacity,
    check,
    delivery,
    demo,
    dlq,
    documents,
    entities,
    keys,
    lag,
    llm,
    mcp,
    reindex,
    run,
    topics,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Documents on Kafka topics, searchable as vectors and as a graph; nothing lost on the way.",
)
for command in (
    run.up,
    demo.demo,
    documents.publish,
    documents.delete,
    documents.status,
    documents.search,
    ask.ask,
    mcp.mcp,
    lag.lag,
    llm.llm,
    check.check,
    check.digest,
    delivery.smoke,
    reindex.reindex,
    backup.backup,
    backup.restore,
    backup.rebuild,
    capacity.capacity,
    keys.audit,
    run.worker,
    run.node,
    run.api,
):
    app.command()(command)
app.add_typer(dlq.app, name="dlq")
app.add_typer(delivery.app, name="rollout")
app.add_typer(entities.app, name="entities")
app.add_typer(topics.app, name="topics")
app.add_typer(keys.app, name="keys")
app.add_typer(keys.users, name="users")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
