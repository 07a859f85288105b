"""Bringing what AIOS left behind into a store: in batches, each one transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agentos_store.errors import ConflictError
from agentos_store.importers.aios.database import AiosDatabase
from agentos_store.importers.aios.event_log import EventLog
from agentos_store.importers.aios.loader import Loader
from agentos_store.importers.aios.opening import open_aios
from agentos_store.importers.aios.records import AgentRecord, EventRecord
from agentos_store.importers.problems import Problem
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.importers.run import Run, batches, counted, one_by_one
from agentos_store.operation import Blocking
from agentos_store.store.blocking import Store


def import_aios(
    store: Store,
    path: str | os.PathLike[str],
    *,
    keep_status: bool = False,
    keep_secrets: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import the agents, tasks, contexts and events of an ``aios.db``, or the events of an ``events.jsonl``.

    The file is only read. Each row arrives, repaired where it has to be, or is set aside with its reason. What the
    store has already stays as it is there: a second run changes nothing, one over a file that has grown brings what is
    new, and a run that was killed is repeated. With ``keep_status`` tasks that waited or ran arrive pending and
    running, else paused, so that no worker picks up old work by surprise. Secrets in the statistics of agents arrive
    as ``[redacted]`` unless they are to be kept. Raises what ``open_aios`` raises, and ConflictError when the file was
    written to or imported by somebody else meanwhile; a log may grow.
    """
    with open_aios(path, keep_status=keep_status, keep_secrets=keep_secrets) as source:
        return load_aios(store, source, str(path), progress=progress)


def load_aios(
    store: Store, source: AiosDatabase | EventLog, called: str, *, progress: Progress | None = None
) -> ImportReport:
    """Import from a file that is open already; ``called`` is what the report calls it."""
    report = ImportReport(called, source.shape, "")
    loader = store.bind(Loader[Blocking])
    for problem in source.problems:
        report.aside(Note(problem.table, problem.key, problem.reason))
    if isinstance(source, EventLog):
        run = Run(report, lambda _: 0, _by_share(source, progress))
        run.load("events", source.events(), one_by_one(loader.lines, _named))
        for repair in source.repairs:
            report.repair(Note(repair.table, repair.key, repair.what))
    else:
        run = Run(report, source.total, progress)
        run.load("agents", source.agents(), loader.agents)
        run.load("tasks", source.tasks(), loader.tasks)
        _link(loader, report, source)
        run.load("sessions", source.sessions(), loader.sessions)
        run.load("contexts", source.contexts(), loader.contexts)
        run.load("events", source.events(), one_by_one(loader.events, _named))
        report.no_place = source.no_place()
    if source.changed:
        raise ConflictError("file", called, "it was written to during the import; run the import again")
    if report.imported:
        loader.remember(counted(report))
    return report


def _by_share(source: EventLog, progress: Progress | None) -> Progress | None:
    """Tell how many lines there are by how much of the file is read, for nobody has counted them."""
    if progress is None:
        return None
    return lambda kind, done, _: progress(kind, done, max(done, round(done / (source.share or 1.0))))


def _link(loader: Loader[Blocking], report: ImportReport, source: AiosDatabase) -> None:
    """Link the agents to their last tasks, which come in after them."""
    for batch in batches(_with_last_task(source)):
        outcome = loader.last_tasks(batch)
        for position, notes in outcome.changed.items():
            # One that was repaired in another way is counted already.
            report.of("agents").repaired += not batch[position].repairs
            for note in notes:
                report.repair(note)


def _with_last_task(source: AiosDatabase) -> Iterator[AgentRecord]:
    for item in source.agents():
        if not isinstance(item, Problem) and item.last_task_id is not None:
            yield item


def _named(record: EventRecord) -> tuple[str, str]:
    return record.table, record.source_key
