"""``agentos-store db``: the schema and its revisions."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli import upkeep
from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import Where, where
from agentos_store.engine.version import HEAD
from agentos_store.errors import InvalidValueError
from agentos_store.migrate import ensure_migrations
from agentos_store.migrate.many import SchemaState, find_schemas, upgrade_schemas
from agentos_store.migrate.revisions import alembic_ini, check_revision, known
from agentos_store.migrate.target import Target
from agentos_store.operations.partitions import AHEAD, ROWS

app = typer.Typer(help="The schema and its revisions.", no_args_is_help=True)


def _complete_revision(incomplete: str) -> list[str]:
    return [revision for revision in known() if revision.startswith(incomplete)]


def _complete_base_or_revision(incomplete: str) -> list[str]:
    return [*(["base"] if "base".startswith(incomplete) else []), *_complete_revision(incomplete)]


AllSchemas = Annotated[
    bool, typer.Option("--all-schemas", help="Every schema of the PostgreSQL database that holds a store.")
]

ClimbTo = Annotated[str, typer.Argument(help="Where to climb to.", autocompletion=_complete_revision)]


@app.command()
def upgrade(
    context: typer.Context,
    revision: ClimbTo = "head",
    all_schemas: AllSchemas = False,
    as_json: AsJSON = False,
) -> None:
    """Bring the schema to the newest revision; safe from any number of processes at once.

    With --all-schemas each is a transaction of its own; one that fails costs only itself, and makes the exit code 1.
    """
    place = where(context)
    if all_schemas:
        _upgrade_all(place, revision, as_json=as_json)
        return
    target = Target.of(place.url, schema=place.schema)
    before = target.revision()
    applied = ensure_migrations(place.url, schema=place.schema, revision=revision)
    found = target.revision()
    if as_json:
        print_json({"database": target.describe(), "before": before, "revision": found, "applied": applied})
        return
    done = f"{_revisions(applied)} applied" if applied else "nothing to do"
    echo(f"{target.describe()}: {done}, at {found}")


def _upgrade_all(place: Where, revision: str, *, as_json: bool) -> None:
    from agentos_store.cli.consoles import progress_bar

    _refuse_schema(place)
    with progress_bar(quiet=as_json) as bar:
        task = bar.add_task("schemas", total=None)
        found = upgrade_schemas(
            place.url,
            revision=revision,
            progress=lambda _, done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        _print_schemas(found, "schema", "before", "revision", "applied", "error")
    elif found:
        rows = [(each.schema, each.before, each.revision, each.applied, each.error) for each in found]
        columns = ["schema", "before", "now", "applied", "error"]
        upgraded = sum(1 for each in found if each.applied)
        print_table("Schemas", columns, rows, right=["applied"], whole=["schema", "before", "now"])
        echo(f"{upgraded:,} of {len(found):,} schemas upgraded")
    else:
        echo(NONE)
    _fail_if_one_did(found)


NONE = "no schema of this database holds a store"


@app.command()
def downgrade(
    context: typer.Context,
    revision: Annotated[
        str,
        typer.Argument(
            help="Where to descend to; 'base' removes every table.",
            autocompletion=_complete_base_or_revision,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be taken back.")] = False,
    as_json: AsJSON = False,
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
    if not as_json:
        echo(f"{target.describe()}: takes back {', '.join(steps) or 'nothing'}")
    if steps and not dry_run:
        if not yes:
            # Standard output is a program's then.
            question = "Tables and columns of these revisions are removed with their data. Go on?"
            typer.confirm(question, abort=True, err=as_json)
        from agentos_store.migrate.upgrade import downgrade as descend

        taken = descend(target, None if revision == "base" else revision)
        if not as_json:
            echo(f"{_revisions(taken)} taken back, at {target.revision() or 'base'}")
    if as_json:
        taken_back = {"before": found, "revision": target.revision(), "taken_back": steps, "dry_run": dry_run}
        print_json({"database": target.describe(), **taken_back})


@app.command()
def current(context: typer.Context, all_schemas: AllSchemas = False, as_json: AsJSON = False) -> None:
    """Tell which revision the database is at."""
    place = where(context)
    if all_schemas:
        _show_all(place, as_json=as_json)
        return
    target = Target.of(place.url, schema=place.schema)
    found = target.revision()
    if as_json:
        print_json({"database": target.describe(), "revision": found, "head": HEAD})
    else:
        echo(f"{target.describe()}: {found or 'no schema yet'} (this code: {HEAD})")


def _show_all(place: Where, *, as_json: bool) -> None:
    _refuse_schema(place)
    found = find_schemas(place.url)
    if as_json:
        _print_schemas(found, "schema", "revision", "error")
    elif found:
        rows = [(each.schema, each.revision or "no schema yet", each.error) for each in found]
        behind = sum(1 for each in found if each.revision != HEAD)
        print_table("Schemas", ["schema", "revision", "error"], rows, whole=["schema", "revision"])
        echo(f"{len(found):,} schemas, {behind:,} of them not at {HEAD}")
    else:
        echo(NONE)
    _fail_if_one_did(found)


def _refuse_schema(place: Where) -> None:
    if place.schema is not None:
        raise InvalidValueError("schema", "either this one is meant, or with --all-schemas every one")


def _print_schemas(found: Sequence[SchemaState], *names: str) -> None:
    errors = [None if each.error is None else str(each.error) for each in found]
    rows = [
        {name: error if name == "error" else getattr(each, name) for name in names}
        for each, error in zip(found, errors, strict=True)
    ]
    print_json({"head": HEAD, "failed": len(errors) - errors.count(None), "schemas": rows})


def _fail_if_one_did(found: Sequence[SchemaState]) -> None:
    if any(each.error is not None for each in found):
        raise typer.Exit(FOUND_WRONG)


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
def sql(context: typer.Context, revision: ClimbTo = "head") -> None:
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
def grants(
    context: typer.Context,
    owner: Annotated[str, typer.Option(help="The role that owns the schema and migrates.")] = "agentos_owner",
    app_role: Annotated[str, typer.Option("--app", help="The role that works.")] = "agentos_app",
    reader: Annotated[str, typer.Option(help="The role that reads.")] = "agentos_reader",
) -> None:
    """Print the SQL that makes the three roles of a PostgreSQL database, each with what it needs and no more.

    It is run before the first migration and once more behind it; DATABASE_APPEND_ONLY says what keeps audits.
    """
    from agentos_store.migrate.grants import Roles
    from agentos_store.migrate.grants import grants as write

    place = where(context)
    target = Target.of(place.url, schema=place.schema)
    echo(write(target, Roles(owner=owner, application=app_role, reader=reader)))


@app.command()
def config() -> None:
    """Print the path of the alembic.ini that belongs to this installation: alembic -c "$(agentos-store db config)" …"""
    echo(str(alembic_ini()))


app.command("vacuum")(upkeep.vacuum)
app.command("salvage")(upkeep.salvage)


def _revisions(count: int) -> str:
    return "1 revision" if count == 1 else f"{count} revisions"
