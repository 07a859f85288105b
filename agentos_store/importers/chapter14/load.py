"""Bringing an agent store of chapter 14 into a store: in batches, each one transaction."""

from __future__ import annotations

import os

from agentos_store.errors import ConflictError
from agentos_store.importers.chapter14.database import AgentStore, open_agent_store
from agentos_store.importers.chapter14.loader import Loader
from agentos_store.importers.records import MessageRecord
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.importers.run import Run, counted, one_by_one
from agentos_store.operation import Blocking
from agentos_store.store.blocking import Store


def import_agent_store(
    store: Store, path: str | os.PathLike[str], *, keep_status: bool = False, progress: Progress | None = None
) -> ImportReport:
    """Import users, sessions, messages, tasks and tool logs of a database of chapter 14.

    The file is only read. Each row arrives, repaired where it has to be, or is set aside with its reason. What the
    store has already stays as it is there: a second run changes nothing, one over a file that has grown brings what is
    new, and a run that was killed is repeated. With ``keep_status`` tasks that waited or ran arrive pending and
    running, else paused, so that no worker picks up old work by surprise. Raises what ``open_agent_store`` raises, and
    ConflictError when the file was written to or imported by somebody else meanwhile.
    """
    with open_agent_store(path) as source:
        return load_agent_store(store, source, str(path), keep_status=keep_status, progress=progress)


def load_agent_store(
    store: Store,
    source: AgentStore,
    called: str,
    *,
    keep_status: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import an agent store that is open already; ``called`` is what the report calls it."""
    report = ImportReport(called, "chapter14", "")
    loader = store.bind(Loader[Blocking])
    for problem in source.problems:
        report.aside(Note(problem.table, problem.key, problem.reason))
    run = Run(report, source.total, progress)
    run.load("users", source.users(), loader.users)
    run.load("sessions", source.sessions(), loader.sessions)
    run.load("messages", source.messages(), one_by_one(loader.messages, _named))
    run.load("tasks", source.tasks(keep_status=keep_status), loader.tasks)
    run.load("tool_calls", source.tool_calls(), loader.tool_calls)
    report.no_place = source.no_place()
    if source.changed:
        raise ConflictError("file", called, "it was written to during the import; run the import again")
    if report.imported:
        loader.remember(counted(report))
    return report


def _named(record: MessageRecord) -> tuple[str, str]:
    return record.table, record.source_key
