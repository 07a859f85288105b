"""``agentos-store db``: the schema and its revisions."""

from __future__ import annotations

import io
from argparse import Namespace
from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import where
from agentos_store.engine.version import HEAD
from agentos_store.errors import InvalidValueError
from agentos_store.migrate import ensure_migrations
from agentos_store.migrate.revisions import alembic_ini, check_revision, known
from agentos_store.migrate.target import Target
from agentos_store.operations.partitions import AHEAD, ROWS

app = typer.Typer(help="The schema and its revisions.", no_args_is_help=True)


@app.command()
def upgrade(
    context: typer.Context, revision: Annotated[str, typer.Argument(help="Where to climb to.")] = "head"
) -> None:
    """Bring the schema to the newest revision; safe from any number of processes at once."""
    place = where(context)
    applied = ensure_migrations(place.url, schema=place.schema, revision=revision)
    target = Target.of(place.url, schema=place.schema)
    done = f"{_revisions(applied)} applied" if applied else "nothing to do"
    echo(f"{target.describe()}: {done}, at {target.revision()}")


@app.command()
def downgrade(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="Where to descend to; 'base' removes every table.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be taken back.")] = False,
) -> None:
    """Take revisions back, and with them the data that only they can hold."""
    place = where(context)
    target = Target.of(place.url, schema=place.schema)
    if revision != "base" and revision not in known():
        raise InvalidValueError("revision", f"there is no such revision; there are base, {', '.join(known())}")
    found = target.revision()
    if found is not None and found not in known():
        check_revision(found, where=target.describe())
    steps = [step for step in known() if found is not None and step <= found]
    steps = [step for step in reversed(steps) if revision == "base" or step > revision]
    echo(f"{target.describe()}: takes back {', '.join(steps) or 'nothing'}")
    if dry_run or not steps:
        return
    if not yes:
        typer.confirm("Tables and columns of these revisions are removed with their data. Go on?", abort=True)
    from agentos_store.migrate.upgrade import downgrade as descend

    taken = descend(target, None if revision == "base" else revision)
    echo(f"{_revisions(taken)} taken back, at {target.revision() or 'base'}")


@app.command()
def current(context: typer.Context, as_json: AsJSON = False) -> None:
    """Tell which revision the database is at."""
    place = where(context)
    target = Target.of(place.url, schema=place.schema)
    found = target.revision()
    if as_json:
        print_json({"database": target.describe(), "revision": found, "head": HEAD})
    else:
        echo(f"{target.describe()}: {found or 'no schema yet'} (this code: {HEAD})")


@app.command()
def history(context: typer.Context, as_json: AsJSON = False) -> None:
    """List the revisions, and which of them the database has."""
    place = where(context)
    found = Target.of(place.url, schema=place.schema).revision()
    applied = set(known()[: known().index(found) + 1]) if found in known() else set()
    if as_json:
        print_json([{"revision": revision, "applied": revision in applied} for revision in known()])
    else:
        print_table("Revisions", ["revision", "applied"], [(r, "yes" if r in applied else "") for r in known()])


@app.command()
def check(context: typer.Context, as_json: AsJSON = False) -> None:
    """Compare the database with the models: tables, columns, constraints, indexes, triggers."""
    from agentos_store.migrate.drift import count_partitions, find_drift

    place = where(context)
    target = Target.of(place.url, schema=place.schema)
    differences = find_drift(target)
    if as_json:
        print_json([{name: getattr(d, name) for name in ("table", "what", "database", "models")} for d in differences])
    elif differences:
        rows = [(d.table, d.what, d.database, d.models) for d in differences]
        print_table("The database differs from the models", ["table", "what", "database", "models"], rows)
    else:
        divided = count_partitions(target)
        also = f", with the events partitioned by position ({divided} partitions)" if divided else ""
        echo(f"no drift: the database is what the models say{also}")
    if differences:
        raise typer.Exit(FOUND_WRONG)


@app.command("partition-events")
def partition_events(
    context: typer.Context,
    rows: Annotated[int, typer.Option(help="How many positions one partition holds.")] = ROWS,
    ahead: Annotated[int, typer.Option(help="How many partitions wait behind the one that is written to.")] = AHEAD,
    as_json: AsJSON = False,
) -> None:
    """Partition the events by position, on PostgreSQL, so that prune drops old ones whole; again: make more ahead."""
    with where(context).open() as store:
        report = store.partition_events(rows=rows, ahead=ahead)
    if as_json:
        print_json(asdict(report))
        return
    found = [(part.name, part.start, part.end, "yes" if part.name in report.made else "") for part in report.partitions]
    print_table("Partitions of events", ["name", "from", "to", "new"], found, right=["from", "to"])
    echo("events is partitioned now" if report.divided else f"{len(report.made)} new partitions")


@app.command()
def sql(context: typer.Context, revision: Annotated[str, typer.Argument(help="Where to climb to.")] = "head") -> None:
    """Print the SQL of an upgrade from nothing, for a database that others administer."""
    from alembic import command
    from alembic.config import Config

    if revision not in {"head", *known()}:
        raise InvalidValueError("revision", f"there is no such revision; there are head, {', '.join(known())}")
    place = where(context)
    written = io.StringIO()
    config = Config(alembic_ini(), output_buffer=written)
    arguments = {"url": place.url, "schema": place.schema}
    config.cmd_opts = Namespace(x=[f"{name}={value}" for name, value in arguments.items() if value is not None])
    command.upgrade(config, revision, sql=True)
    echo(written.getvalue())


@app.command()
def config() -> None:
    """Print the path of the alembic.ini that belongs to this installation: alembic -c "$(agentos-store db config)" …"""
    echo(str(alembic_ini()))


def _revisions(count: int) -> str:
    return "1 revision" if count == 1 else f"{count} revisions"
