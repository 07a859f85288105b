"""``agentos-store doctor``: what is wrong or weak with the database, and what to do about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from agentos_store.cli.exits import FOUND_WEAK, FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json
from agentos_store.cli.where import where

if TYPE_CHECKING:
    from agentos_store.engine.backend import Backend
    from agentos_store.migrate.target import Target
    from agentos_store.operations.doctor import Diagnosis

CODES = {"error": FOUND_WRONG, "warning": FOUND_WEAK}


def doctor(
    context: typer.Context,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read everything: the whole file, all indexes, all audit chains.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Look what is wrong or weak with the database, what comes of it, and what to do. Nothing is changed."""
    from agentos_store.migrate.target import Target
    from agentos_store.operations.doctor import examine

    place = where(context)
    found = examine(Target.of(place.url, schema=place.schema), _open, deep=deep)
    if as_json:
        print_json({"ok": found.ok, "worst": found.worst, **asdict(found)})
    else:
        echo(_report(found))
    if found.worst in CODES:
        raise typer.Exit(CODES[found.worst])


def _open(target: Target) -> Backend:
    from agentos_store.store.opening import open_backend

    return open_backend(target.url, schema=target.schema, settings=target.settings, engine=None)


def _report(diagnosis: Diagnosis) -> str:
    lines = [f"{diagnosis.database} ({diagnosis.server})", ""]
    for each in diagnosis.findings:
        lines += [
            f"{each.severity:8} {each.code}: {each.found}",
            f"{'':8} {each.meaning}",
            f"{'':8} → {each.remedy}",
            "",
        ]
    counts = Counter(each.severity for each in diagnosis.findings)
    numbers = [f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in ("error", "warning", "note")]
    return "\n".join([*lines, f"{diagnosis.checks} checks: {', '.join(numbers)}"])
