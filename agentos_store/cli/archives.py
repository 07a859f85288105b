"""``agentos-store backup``, ``restore`` and ``verify``: what is kept for a bad day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json, print_table, size
from agentos_store.cli.stages import stages
from agentos_store.cli.where import where

if TYPE_CHECKING:
    from agentos_store.operations.backups import BackupReport, RestoreReport, VerifyReport
    from agentos_store.operations.moving.archive_source import ArchiveReport


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    format: Annotated[
        str | None,
        typer.Option(help="archive, for either database, or sqlite, a copy of an SQLite file; else the ending says."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a backup that has the name.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Write what the database holds at this moment into one file, while others go on writing.

    FILE becomes an archive, from which SQLite and PostgreSQL can be restored; or, if it ends in .sqlite, .sqlite3 or
    .db, a copy of the SQLite file.
    """
    chosen: Any = format
    with where(context).open() as store, stages(quiet=as_json) as progress:
        report = store.backup(file, format=chosen, replace=replace, progress=progress)
    if as_json:
        print_json(_plain(report))
        return
    from agentos_store.operations.backups import BackupReport

    echo(f"{report.path}: {size(report.size_bytes)}, {sum(report.rows.values()):,} rows, revision {report.revision}")
    if isinstance(report, BackupReport):
        for fault in report.faults:
            echo(f"in the database itself: {fault}")
    else:
        echo(f"root hash {report.root_hash}, sha256 {report.sha256}")


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The backup: an archive, or an SQLite file.")],
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew what an unfinished restore has left in the database.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove whatever the database holds, for good, and restore then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before what is there is removed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many rows would be removed.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Make the database of --url from a backup, where there is none yet or an empty one. The backup is checked first.

    No store opens the database before everything is in it. A restore of an archive that was interrupted or killed goes
    on when the command is given again.
    """
    from agentos_store.operations.backups import RestoreReport
    from agentos_store.operations.saving import restore_backup

    place = where(context)
    if replace or dry_run:
        from agentos_store.cli.replacing import may_replace
        from agentos_store.operations.moving import archive_reading, places

        goal, whole_file = places.place(place.url, place.schema, None, "target"), not archive_reading.is_archive(file)
        if not may_replace(
            goal, replace=replace, restart=restart, yes=yes, dry_run=dry_run, as_json=as_json, whole_file=whole_file
        ):
            return
    with stages(quiet=as_json) as progress:
        report = restore_backup(
            file, place.url, schema=place.schema, restart=restart, replace=replace, progress=progress
        )
    if isinstance(report, RestoreReport):
        _show_file(report, as_json=as_json)
    else:
        from agentos_store.cli.copying import show_move

        show_move(report, as_json=as_json)


def verify(
    file: Annotated[Path, typer.Argument(help="The backup: an archive, or an SQLite file.")], as_json: AsJSON = False
) -> None:
    """Read a backup from its beginning to its end, and check it; exit code 1 when it is not whole."""
    from agentos_store.operations.saving import verify_backup

    with stages(quiet=as_json) as progress:
        report = verify_backup(file, progress=progress)
    from agentos_store.operations.backups import VerifyReport

    # Of an archive that is not whole there is no report.
    faults = _faults(report) if isinstance(report, VerifyReport) else []
    # What the database had not put right when it was copied is no fault of the copy.
    left = _findings(report) if isinstance(report, VerifyReport) else []
    if as_json:
        print_json({**_plain(report), "ok": not faults, "faults": faults, "findings": left})
    else:
        rows = [(name, count) for name, count in report.rows.items() if count]
        print_table(f"{report.path} ({size(report.size_bytes)})", ["table", "rows"], rows, right=["rows"])
        for fault in faults:
            echo(f"wrong: {fault}")
        for finding in left:
            echo(f"in the database as well, most likely: {finding}")
        echo("it is not whole" if faults else f"whole: {sum(report.rows.values()):,} rows")
    if faults:
        raise typer.Exit(FOUND_WRONG)


def _show_file(report: RestoreReport, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": report.path, "target": report.target, **_plain(report), "kept": list(report.kept)})
        return
    echo(f"{report.target}: {sum(report.rows.values()):,} rows, revision {report.revision}")
    for kept in report.kept:
        echo(f"moved aside, for it was damaged: {kept}")
    for fault in report.faults:
        echo(f"in the backup already: {fault}")


def _plain(report: BackupReport | ArchiveReport | RestoreReport | VerifyReport) -> dict[str, Any]:
    """Return what all of them have, and of an archive the rest."""
    from agentos_store.operations.moving.archive_source import ArchiveReport

    found: dict[str, Any] = {
        "path": report.path,
        "format": "archive" if isinstance(report, ArchiveReport) else "sqlite",
        "size_bytes": report.size_bytes,
        "revision": report.revision,
        "rows": dict(report.rows),
    }
    if isinstance(report, ArchiveReport):
        names = ("backend", "created_at", "program", "root_hash", "sha256")
        return {**found, **{name: getattr(report, name) for name in names}}
    return found


def _faults(report: VerifyReport) -> list[str]:
    found = [*report.integrity, *report.foreign_keys]
    if report.audits is not None:
        found += [f"audit trail of task {fault.task_id}: {fault.detail}" for fault in report.audits.faults]
    return found


def _findings(report: VerifyReport) -> list[str]:
    listed = [] if report.consistency is None else report.consistency.findings
    return [f"{finding.entity} {finding.key}: {finding.what}" for finding in listed]
