"""Before a database is replaced by another: what would be lost, and whether that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agentos_store.cli.output import echo, print_json, print_table
from agentos_store.engine.version import UNFINISHED
from agentos_store.operations.moving.places import rows_at

if TYPE_CHECKING:
    from agentos_store.migrate.target import Target


def may_replace(
    target: Target,
    *,
    replace: bool,
    restart: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    whole_file: bool = False,
) -> bool:
    """Return whether the work is to be done; ask first where rows would go, and only say which in a dry run."""
    if yes and not dry_run:
        return True
    going = replace or (restart and target.revision() == UNFINISHED)
    removed = rows_at(target, whole_file=whole_file) if going else {}
    where = target.describe()
    if dry_run and as_json:
        print_json({"target": where, "dry_run": True, "removed": None if removed is None else dict(removed)})
        return False
    if removed is None:
        what = f"{where} cannot be read; it is moved aside"
    elif removed:
        what = f"{sum(removed.values()):,} rows of {where} are removed for good"
        if not as_json:
            print_table(f"Would go of {where}", ["table", "rows"], list(removed.items()), right=["rows"])
    else:
        what = f"nothing of {where} is removed"
    if dry_run:
        echo(what)
    elif removed != {}:
        typer.confirm(f"{what}. Go on?", abort=True, err=True)
    return not dry_run
