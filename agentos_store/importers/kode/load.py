"""Bringing a KODE directory into a store, agent by agent, so that a run that is killed is simply repeated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from agentos_store.errors import InvalidValueError
from agentos_store.importers.kode.directory import KodeStore, open_store
from agentos_store.importers.kode.events import KIND as EVENTS
from agentos_store.importers.kode.files import shown
from agentos_store.importers.kode.item import LISTED, STRAY
from agentos_store.importers.kode.loader import Loader
from agentos_store.importers.kode.records import AgentRecord, EventRecord
from agentos_store.importers.kode.report import StoreReport
from agentos_store.importers.kode.survey import AGENTS, CALLS, DOCUMENTS, MESSAGES, SNAPSHOTS
from agentos_store.importers.kode.written import Written, all_set_aside
from agentos_store.importers.problems import Problem, Repair
from agentos_store.importers.report import Counts, Note, Progress
from agentos_store.importers.run import batches, counted, one_by_one
from agentos_store.operation import Blocking
from agentos_store.store.blocking import Store

KINDS = (AGENTS, MESSAGES, CALLS, SNAPSHOTS, *DOCUMENTS.values(), EVENTS)


def import_store(
    store: Store, path: str | os.PathLike[str], *, keep_secrets: bool = False, progress: Progress | None = None
) -> StoreReport:
    """Import the agents of a KODE JSONStore directory: each with its conversation, calls, documents, snapshots, events.

    The directory is only read. An agent comes in whole or not at all, and its events after it, in batches; a file that
    is bad is set aside with its reason, and spoils nothing else. Secrets in configurations arrive as ``[redacted]``
    unless they are to be kept. A second run changes nothing; of a directory that was changed since, what is new comes
    in, but what the store changed since is kept. Raises what ``open_store`` raises.
    """
    return load_store(store, open_store(path, keep_secrets=keep_secrets), str(path), progress=progress)


def load_store(store: Store, source: KodeStore, name: str, *, progress: Progress | None = None) -> StoreReport:
    """Import from a directory that is open already; ``name`` is what the report calls it."""
    report = StoreReport(name, "jsonstore", "")
    for kind in KINDS:
        report.of(kind)
    loader = store.bind(Loader[Blocking])
    left: Counter[str] = Counter()
    for number, record in enumerate(source.agents(), start=1):
        _load(loader, report, source, record, progress)
        left["files left by a crash"] += record.ignored
        _count_strays(left, report, record.strays)
        if progress is not None:
            progress(AGENTS, number, max(number, source.total))
    _note(report, source.findings.problems, source.findings.repairs)
    for problem in source.findings.problems:
        if problem.table in report.counts:
            counts = report.of(problem.table)
            counts.read += 1
            counts.set_aside += 1
    _count_strays(left, report, source.findings.strays)
    left["files left by a crash"] += source.findings.ignored
    left["pool"] += source.pool is not None
    left["empty folders"] += source.shells
    report.no_place = {kind: count for kind, count in left.items() if count}
    if report.imported:
        loader.remember(counted(report))
    return report


def _load(
    loader: Loader[Blocking], report: StoreReport, source: KodeStore, record: AgentRecord, progress: Progress | None
) -> None:
    try:
        written = loader.agent(record)
    except InvalidValueError as error:
        written = all_set_aside(record, str(error))
    if written.is_in:
        _load_events(loader, report, source, record, written, progress)
    counts = written.counts
    # Of lines that are no events only the first are listed, and all are counted.
    logs = tuple(shown(file) for channel in record.events.values() for file in channel.files)
    for problem in record.problems:
        if problem.table in report.counts and not (problem.table == EVENTS and problem.key.startswith(logs)):
            counts.setdefault(problem.table, Counts()).set_aside += 1
    for channel in record.events.values():
        counts.setdefault(EVENTS, Counts()).set_aside += channel.lost
        counts[EVENTS].merged += channel.repeated
    for kind in {repair.table for repair in record.repairs}:
        if kind in report.counts:
            keys = {repair.key for repair in record.repairs if repair.table == kind}
            counts.setdefault(kind, Counts()).repaired += len(keys)
    for note in written.changed:
        counts.setdefault(note.table, Counts()).repaired += 1
    for each in counts.values():
        each.read = each.imported + each.repeated + each.set_aside + each.merged
    report.add(record.agent_id, counts)
    _note(report, record.problems, record.repairs)
    for note in written.changed:
        report.repair(note)
    for note in written.refused:
        report.aside(note)


def _load_events(
    loader: Loader[Blocking],
    report: StoreReport,
    source: KodeStore,
    record: AgentRecord,
    written: Written,
    progress: Progress | None,
) -> None:
    """Write an agent's events, each batch by itself: there may be more of them than one transaction should hold."""
    if not record.events:
        return
    write = one_by_one(loader.events, _named)
    before, done = report.of(EVENTS).read, 0
    total = sum(channel.distinct for channel in record.events.values())
    counts = written.of(EVENTS)
    for batch in batches(source.events(record)):
        written.add(EVENTS, write(batch), len(batch))
        for event in batch:
            counts.repaired += bool(event.repairs)
            for repair in event.repairs:
                report.repair(Note(repair.table, repair.key, repair.what))
        done += len(batch)
        if progress is not None:
            progress(EVENTS, before + done, before + max(done, total))


def _named(event: EventRecord) -> tuple[str, str]:
    return EVENTS, f"{shown(event.agent_id)}/{EVENTS}/{event.channel} {event.seq}"


def _count_strays(left: Counter[str], report: StoreReport, strays: int) -> None:
    left[STRAY] += strays
    report.unlisted += max(0, strays - LISTED)


def _note(report: StoreReport, problems: Iterable[Problem], repairs: Iterable[Repair]) -> None:
    for problem in problems:
        report.aside(Note(problem.table, problem.key, problem.reason))
    for repair in repairs:
        report.repair(Note(repair.table, repair.key, repair.what))
