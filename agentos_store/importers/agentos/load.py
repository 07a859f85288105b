"""Bringing a registry into a store: in batches, each one transaction, so that a run that is killed can be repeated.

Rows with a key of their own are passed over when the store has them. Audits have none that survives, so the ledger
remembers which of them came in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TypeVar

from agentos_store.errors import ConflictError
from agentos_store.importers.agentos.loader import BATCH, Loader, Outcome
from agentos_store.importers.agentos.records import (
    ArtifactRecord,
    AuditRecord,
    DependencyRecord,
    InboxRecord,
    LineageRecord,
    ProjectRecord,
    RepoRecord,
    ScopeRecord,
    SessionRecord,
    TaskRecord,
    VerdictRecord,
)
from agentos_store.importers.agentos.registry import Registry, open_registry
from agentos_store.importers.agentos.report import Problem
from agentos_store.importers.agentos.rest import new_file, write_rest
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.operation import Blocking
from agentos_store.store.blocking import Store

T = TypeVar(
    "T",
    ProjectRecord,
    RepoRecord,
    SessionRecord,
    TaskRecord,
    LineageRecord,
    AuditRecord,
    DependencyRecord,
    ScopeRecord,
    ArtifactRecord,
    VerdictRecord,
    InboxRecord,
)
Item = TypeVar("Item")


def import_registry(
    store: Store,
    path: str | os.PathLike[str],
    *,
    keep_status: bool = False,
    progress: Progress | None = None,
    export_rest: str | os.PathLike[str] | None = None,
) -> ImportReport:
    """Import projects, repositories, sessions, and tasks with all that belongs to them of an AgentOS registry.

    The file is only read. Each row arrives, repaired where it has to be, or is set aside with its reason. What the
    store has already stays as it is there, so a second run changes nothing, and a run that was killed is repeated.
    With ``keep_status`` tasks that waited or ran arrive pending and running, else paused, so that no worker picks up
    old work by surprise. With ``export_rest`` the rows that the store has no place for, or none yet, are written to
    that new file as JSON lines. Raises what ``open_registry`` raises, AlreadyExistsError when that file is there, and
    ConflictError when the registry was written to or imported by somebody else meanwhile.
    """
    with open_registry(path) as registry:
        return load_registry(
            store, registry, str(path), keep_status=keep_status, progress=progress, export_rest=export_rest
        )


def load_registry(
    store: Store,
    registry: Registry,
    source: str,
    *,
    keep_status: bool = False,
    progress: Progress | None = None,
    export_rest: str | os.PathLike[str] | None = None,
) -> ImportReport:
    """Import a registry that is open already; ``source`` is what the report calls it."""
    with ExitStack() as stack:
        # Made before anything else: that it cannot be made is better known at once.
        rest = None if export_rest is None else stack.enter_context(new_file(export_rest))
        report = _load(store, registry, source, keep_status=keep_status, progress=progress)
        if rest is not None:
            write_rest(registry, rest, report)
            _refuse_changed(registry, source)
    return report


def _load(
    store: Store, registry: Registry, source: str, *, keep_status: bool, progress: Progress | None
) -> ImportReport:
    report = ImportReport(source, registry.shape.value, registry.version)
    loader = store.bind(Loader[Blocking])
    for problem in registry.problems:
        report.aside(Note(problem.table, problem.key, problem.reason))
    run = _Run(registry, report, progress)
    run.load("projects", registry.projects(), loader.projects)
    run.load("repositories", registry.repos(), loader.repos)
    for batch in _batches(item for item in registry.projects() if isinstance(item, ProjectRecord)):
        loader.default_repos(batch)
    run.load("sessions", registry.sessions(), loader.sessions)
    run.load("tasks", registry.tasks(keep_status=keep_status), loader.tasks)
    run.load("lineage", registry.lineage(), loader.lineage)
    run.load("audits", registry.audits(), loader.audits)
    run.load("dependencies", registry.dependencies(), loader.dependencies)
    run.load("scopes", registry.scopes(), loader.scopes)
    run.load("artifacts", registry.artifacts(), loader.artifacts)
    run.load("verdicts", registry.verdicts(), loader.verdicts)
    run.load("inbox", registry.inbox(), loader.inbox)
    left = registry.not_yet()
    report.not_yet, report.no_place = left.later, left.no_place
    _refuse_changed(registry, source)
    if report.imported:
        loader.remember({kind: counts.imported for kind, counts in report.counts.items()})
    return report


def _refuse_changed(registry: Registry, source: str) -> None:
    if registry.changed:
        raise ConflictError("registry", source, "it was written to during the import; run the import again")


class _Run:
    """One import under way."""

    def __init__(self, registry: Registry, report: ImportReport, progress: Progress | None) -> None:
        self._registry = registry
        self._report = report
        self._progress = progress

    def load(self, kind: str, items: Iterator[T | Problem], write: Callable[[Sequence[T]], Outcome]) -> None:
        """Write the records in batches and count what became of every row."""
        counts = self._report.of(kind)
        total = self._registry.total(kind)
        for batch in _batches(items):
            records: list[T] = []
            for item in batch:
                counts.read += 1
                if isinstance(item, Problem):
                    counts.set_aside += 1
                    self._report.aside(Note(item.table, item.key, item.reason))
                else:
                    records.append(item)
            self._count(kind, records, write(records))
            if self._progress is not None:
                self._progress(kind, counts.read, max(total, counts.read))

    def _count(self, kind: str, records: Sequence[T], outcome: Outcome) -> None:
        counts = self._report.of(kind)
        counts.imported += outcome.imported
        counts.repeated += len(records) - outcome.imported - len(outcome.refused)
        counts.set_aside += len(outcome.refused)
        for position, record in enumerate(records):
            merged = record.merged if isinstance(record, SessionRecord | DependencyRecord | ScopeRecord) else 0
            counts.merged += merged
            counts.read += merged
            if position in outcome.refused:
                self._report.aside(outcome.refused[position])
                continue
            repairs = [Note(repair.table, repair.key, repair.what) for repair in record.repairs]
            repairs += outcome.changed.get(position, [])
            counts.repaired += bool(repairs)
            for note in repairs:
                self._report.repair(note)


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, BATCH)):
        yield batch
