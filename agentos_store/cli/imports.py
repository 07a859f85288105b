"""``agentos-store import``: data of other systems, brought in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.stages import stages
from agentos_store.cli.where import where
from agentos_store.importers.report import ImportReport

KeepStatus = Annotated[
    bool, typer.Option("--keep-status", help="Let tasks that waited or ran arrive pending and running, not paused.")
]

KeepSecrets = Annotated[
    bool, typer.Option("--keep-secrets", help="Keep API keys and the like, which are redacted otherwise.")
]

app = typer.Typer(help="Bring in the data of other systems.", no_args_is_help=True)


@app.command()
def agentos(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The registry, an SQLite file of schema 0.25.")],
    keep_status: KeepStatus = False,
    export_rest: Annotated[
        Path | None,
        typer.Option("--export-rest", help="Write what has no place in the store to this new JSONL file."),
    ] = None,
    knowledge_project: Annotated[
        str | None,
        typer.Option("--knowledge-project", help="The project of sources of knowledge for which none is found."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Import an AgentOS registry: projects, conversations, tasks with all that belongs to them, memories and knowledge.

    It is only read. A second run changes nothing; a run that was interrupted is simply repeated.
    """
    from agentos_store.importers.agentos.load import load_registry
    from agentos_store.importers.agentos.registry import open_registry

    # The registry first: a slip in its name should leave no new store behind.
    with open_registry(path) as registry, where(context).open(create=True) as store, stages(quiet=as_json) as progress:
        report = load_registry(
            store,
            registry,
            str(path),
            keep_status=keep_status,
            progress=progress,
            export_rest=export_rest,
            knowledge_project=knowledge_project,
        )
    _show(report, f"AgentOS {report.version}", as_json=as_json)


@app.command()
def aios(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The database aios.db, or the log events.jsonl.")],
    keep_status: KeepStatus = False,
    keep_secrets: KeepSecrets = False,
    as_json: AsJSON = False,
) -> None:
    """Import an AIOS database: agents, tasks, contexts and events; or the events of its log. It is only read.

    A second run brings only what is new; a run that was interrupted is simply repeated.
    """
    from agentos_store.importers.aios.load import load_aios
    from agentos_store.importers.aios.opening import open_aios

    with (
        open_aios(path, keep_status=keep_status, keep_secrets=keep_secrets) as source,
        where(context).open(create=True) as store,
        stages(quiet=as_json) as progress,
    ):
        report = load_aios(store, source, str(path), progress=progress)
    _show(report, "AIOS", as_json=as_json)


@app.command()
def chapter14(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The agent store of chapter 14, an SQLite file.")],
    keep_status: KeepStatus = False,
    as_json: AsJSON = False,
) -> None:
    """Import an agent store of chapter 14: users, sessions, messages, tasks and tool logs. It is only read.

    A second run brings only what is new; a run that was interrupted is simply repeated.
    """
    from agentos_store.importers.chapter14.database import open_agent_store
    from agentos_store.importers.chapter14.load import load_agent_store

    with open_agent_store(path) as source, where(context).open(create=True) as store, stages(quiet=as_json) as progress:
        report = load_agent_store(store, source, str(path), keep_status=keep_status, progress=progress)
    _show(report, "Chapter 14", as_json=as_json)


@app.command()
def openai(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Conversations as JSON or JSON lines, compressed with gzip or not.")],
    key: Annotated[
        str | None, typer.Option("--key", help="The key of each record that the messages are under; else it is found.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Import conversations in OpenAI's format, with their tool calls, and with a task where there is a reward.

    A second run changes nothing; a run that was interrupted is simply repeated.
    """
    from agentos_store.importers.openai.load import load_transcripts
    from agentos_store.importers.openai.reading import open_transcripts

    with (
        open_transcripts(path, key=key) as file,
        where(context).open(create=True) as store,
        stages(quiet=as_json) as progress,
    ):
        report = load_transcripts(store, file, str(path), progress=progress)
    _show(report, "OpenAI", as_json=as_json)


@app.command()
def kode(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The directory of a KODE JSONStore: the one with the agents' folders.")],
    keep_secrets: KeepSecrets = False,
    as_json: AsJSON = False,
) -> None:
    """Import the agents of a KODE JSONStore: conversations, tool calls, documents, snapshots, events. It is only read.

    A second run brings only what is new; a run that was interrupted is simply repeated.
    """
    from agentos_store.importers.kode.directory import open_store
    from agentos_store.importers.kode.load import load_store

    # The directory first: a slip in its name should leave no new store behind.
    source = open_store(path, keep_secrets=keep_secrets)
    with where(context).open(create=True) as store, stages(quiet=as_json) as progress:
        report = load_store(store, source, str(path), progress=progress)
    _show(report, "KODE", as_json=as_json)


def print_report(report: ImportReport, system: str) -> None:
    """Print what an import did."""
    columns = ["kind", "read", "imported", "there already", "merged", "set aside", "repaired"]
    rows = [
        (kind, counts.read, counts.imported, counts.repeated, counts.merged, counts.set_aside, counts.repaired)
        for kind, counts in report.counts.items()
    ]
    print_table(f"{system} ({report.source})", columns, rows, right=columns[1:])
    for title, notes in (("Repaired", report.repairs), ("Set aside", report.set_aside)):
        if notes:
            print_table(
                title, ["table", "key", "why"], [(note.table, note.key, note.why) for note in notes], whole=["table"]
            )
    if report.unlisted:
        echo(f"and {report.unlisted:,} more, which are counted above")
    for title, tables in (("Not yet", report.not_yet), ("No place in the store", report.no_place)):
        if tables:
            names = ", ".join(f"{table} {count:,}" for table, count in tables.items())
            echo(f"{title}: {names}")
    if report.exported:
        echo(f"Exported: {sum(report.exported.values()):,} rows of {len(report.exported):,} tables")


def _show(report: ImportReport, system: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report, system)
