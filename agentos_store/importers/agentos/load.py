"""Bringing a registry into a store: in batches, each one transaction, so that a run that is killed can be repeated.

Rows with a key of their own are passed over when the store has them. Audits have none that survives, and memories and
sources may go into others or be deleted here, so the ledger remembers which of them came in.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from agentos_store.errors import ConflictError
from agentos_store.importers.agentos.loader import Loader
from agentos_store.importers.agentos.records import ProjectRecord
from agentos_store.importers.agentos.registry import Registry, open_registry
from agentos_store.importers.agentos.rest import new_file, write_rest
from agentos_store.importers.records import MessageRecord
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.importers.run import Run, batches, counted, one_by_one
from agentos_store.operation import Blocking
from agentos_store.store.blocking import Store


def import_registry(
    store: Store,
    path: str | os.PathLike[str],
    *,
    keep_status: bool = False,
    progress: Progress | None = None,
    export_rest: str | os.PathLike[str] | None = None,
    knowledge_project: str | None = None,
) -> ImportReport:
    """Import projects, users, sessions with messages, tasks with all that belongs to them, memories and knowledge.

    The file is only read. Each row arrives, repaired where it has to be, or is set aside with its reason. What the
    store has already stays as it is there, so a second run changes nothing, and a run that was killed is repeated; only
    a memory that the store has already, in the same place and of the same type, learns from the registry's, once.

    With ``keep_status`` tasks that waited or ran arrive pending and running, else paused, so that no worker picks up
    old work by surprise. With ``export_rest`` the rows that the store has no place for are written to that new file as
    JSON lines. AgentOS's sources of knowledge name a repository by a piece of a hash; those for which no project is
    found belong to ``knowledge_project``, or to none.

    Raises what ``open_registry`` raises, AlreadyExistsError when that file is there, NotFoundError for a project that
    neither side has, and ConflictError when the registry was written to or imported by somebody else meanwhile.
    """
    with open_registry(path) as registry:
        return load_registry(
            store,
            registry,
            str(path),
            keep_status=keep_status,
            progress=progress,
            export_rest=export_rest,
            knowledge_project=knowledge_project,
        )


def load_registry(
    store: Store,
    registry: Registry,
    source: str,
    *,
    keep_status: bool = False,
    progress: Progress | None = None,
    export_rest: str | os.PathLike[str] | None = None,
    knowledge_project: str | None = None,
) -> ImportReport:
    """Import a registry that is open already; ``source`` is what the report calls it."""
    with ExitStack() as stack:
        # Made before anything else: that it cannot be made is better known at once.
        rest = None if export_rest is None else stack.enter_context(new_file(export_rest))
        report = _load(
            store, registry, source, keep_status=keep_status, progress=progress, knowledge_project=knowledge_project
        )
        if rest is not None:
            write_rest(registry, rest, report)
            _refuse_changed(registry, source)
    return report


def _load(
    store: Store,
    registry: Registry,
    source: str,
    *,
    keep_status: bool,
    progress: Progress | None,
    knowledge_project: str | None,
) -> ImportReport:
    if knowledge_project is not None and not registry.has_project(knowledge_project):
        # Before anything is written: a slip in its name is better known at once.
        store.projects.get(knowledge_project)
    report = ImportReport(source, registry.shape.value, registry.version)
    loader = store.bind(Loader[Blocking])
    for problem in registry.problems:
        report.aside(Note(problem.table, problem.key, problem.reason))
    run = Run(report, registry.total, progress)
    run.load("projects", registry.projects(), loader.projects)
    run.load("repositories", registry.repos(), loader.repos)
    for batch in batches(item for item in registry.projects() if isinstance(item, ProjectRecord)):
        loader.default_repos(batch)
    run.load("users", registry.users(), loader.users)
    run.load("sessions", registry.sessions(), loader.sessions)
    run.load("messages", registry.messages(), one_by_one(loader.messages, _named))
    run.load("tasks", registry.tasks(keep_status=keep_status), loader.tasks)
    run.load("lineage", registry.lineage(), loader.lineage)
    run.load("audits", registry.audits(), loader.audits)
    run.load("dependencies", registry.dependencies(), loader.dependencies)
    run.load("scopes", registry.scopes(), loader.scopes)
    run.load("artifacts", registry.artifacts(), loader.artifacts)
    run.load("verdicts", registry.verdicts(), loader.verdicts)
    run.load("inbox", registry.inbox(), loader.inbox)
    run.load("memory", registry.memory(), loader.memory)
    run.load("sources", registry.sources(project=knowledge_project), loader.sources)
    run.load("chunks", registry.chunks(), loader.chunks)
    run.load("embeddings", registry.embeddings(), loader.embeddings)
    report.no_place = registry.no_place()
    _refuse_changed(registry, source)
    if report.imported:
        loader.remember(counted(report))
    return report


def _refuse_changed(registry: Registry, source: str) -> None:
    if registry.changed:
        raise ConflictError("registry", source, "it was written to during the import; run the import again")


def _named(record: MessageRecord) -> tuple[str, str]:
    return record.table, record.source_key
