"""A salvage from beginning to end."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from agentos_store.conversations import message_index
from agentos_store.engine.session import Session
from agentos_store.engine.sqlite.backend import SQLiteBackend, find_open, open_sqlite
from agentos_store.engine.version import HEAD
from agentos_store.engine.version import TABLE as VERSION
from agentos_store.errors import AlreadyExistsError, DamagedFileError, LockTimeoutError, NotFoundError, UsageError
from agentos_store.knowledge import replacing as knowledge
from agentos_store.memory import items as memory
from agentos_store.migrate.revisions import check_known
from agentos_store.migrate.revisions import known as known_revisions
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import upgrade
from agentos_store.operation import Access, Blocking
from agentos_store.operations.backups import looking
from agentos_store.operations.backups.copying import check_copy
from agentos_store.operations.backups.workshop import Progress, new_file, publish, workshop
from agentos_store.operations.consistency import ConsistencyReport, repair
from agentos_store.operations.salvage.catalogue import Catalogue, Column, read_sound
from agentos_store.operations.salvage.loading import NUMBERS, LeftOut, NewFile, filling
from agentos_store.operations.salvage.pages import DamageError, Pages
from agentos_store.operations.salvage.report import EXAMPLES, SalvagedTable, SalvageReport
from agentos_store.operations.salvage.rows import Known, Reading
from agentos_store.operations.salvage.trees import Forest
from agentos_store.search.repository import SearchRepository
from agentos_store.tasks.verification import Verification, verify_chains

MADE_ANEW = {"search_documents", "event_orders"}
"""Tables that are not copied: search is indexed again from what it finds, and the order of events begins anew."""

_SEARCHED = (memory.SOURCE, knowledge.SOURCE, message_index.SOURCE)


def salvage_sqlite(
    path: Path | str, target: Path | str, *, settings: Any = None, progress: Progress | None = None
) -> SalvageReport:
    """Read what can be read of a damaged SQLite file into a new one, and tell what is gone.

    The damaged file is only read, page by page, and never opened by SQLite; the log beside it counts as far as its
    checksums hold. Rows are never made up: each is one that was found whole, fits our types and the schema, and is
    there once. Where a row's parent is gone, it is kept without it if the schema allows that, else it is left out. Rows
    that could be read and not kept are written beside the new file as JSON lines. Afterwards the new file is at this
    code's revision, search is indexed anew, and counters and numbers that no longer fit are put right.

    What is known to be lost is told from the indexes, which hold the keys of rows that are gone. What was overwritten
    inside a text by other text cannot be noticed, except in audits, whose chains are checked.

    Raises NotFoundError for a file that is not there, AlreadyExistsError when the new one is, UsageError or
    LockTimeoutError while the damaged one is open somewhere, SchemaMismatchError for a newer schema, DamagedFileError
    when nothing of a store's schema can be read, UnavailableError for a full disk.
    """
    source, place = Path(path).absolute(), Path(target).absolute()
    _check(source, place)
    with workshop(place) as folder:
        left_out = LeftOut(folder / "left-out")
        try:
            with looking.unchanged(source, Path(f"{source}-wal")), Pages(_without_journal(source, folder)) as pages:
                forest = Forest(pages)
                catalogue = Catalogue(forest)
                if not any(kind == "table" for kind, _ in catalogue.entries):
                    raise DamagedFileError(str(source), "nothing of a store's schema can be read; restore a backup")
                written = _revision(forest, catalogue)
                found = _meant(written)
                check_known(found, where=str(source))
                new = new_file(folder, "new")
                settings = _settings(settings)
                upgrade(Target.of(URL.create("sqlite", database=str(new)), settings=settings), found or HEAD)
                notes = pages.notes
                tables = _fill(new, left_out, forest, catalogue, progress or _silent)
        finally:
            has_left_out = left_out.close()
        if not catalogue.is_whole:
            notes.append("a part of the schema's own pages was lost; tables were told by what their rows look like")
        if found is None:
            notes.append(f"the revision could not be read; the rows were taken for those of {HEAD}")
        if found != written:
            notes.append(f"the revision was damaged and taken for {found}")
        if found is not None and found != HEAD:
            upgrade(Target.of(URL.create("sqlite", database=str(new)), settings=settings), HEAD)
        repaired, audits = _finish(new, settings)
        check_copy(new, of=new)
        beside = Path(f"{place}.left-out.jsonl")
        if has_left_out:
            (folder / "left-out").chmod(0o600)
            publish(folder / "left-out", beside, replace=False)
        try:
            publish(new, place, replace=False)
        except BaseException:
            if has_left_out:
                beside.unlink()
            raise
        return SalvageReport(
            path=str(source),
            target=str(place),
            size_bytes=place.stat().st_size,
            found_revision=found,
            revision=HEAD,
            tables=tables,
            notes=tuple(notes),
            left_out_path=str(beside) if has_left_out else None,
            repaired=repaired,
            audits=audits,
        )


def _check(source: Path, place: Path) -> None:
    if not looking.is_file(source):
        raise NotFoundError("file", str(source))
    for ending in ("", ".left-out.jsonl", *looking.BESIDE):
        # What is left beside a name counts as a part of whatever file gets it.
        if os.path.lexists(f"{place}{ending}"):
            raise AlreadyExistsError("file", f"{place}{ending}")
    if find_open(source) is not None:
        raise UsageError(f"this process has {source} open; close the store first")
    if looking.is_held(source):
        raise LockTimeoutError(f"{source}, which must be closed everywhere", waited=0.0, holder="another process")


def _settings(given: Any) -> Any:
    if given is not None:
        return given
    from agentos_store.settings import Settings

    # What the environment says of a database is not meant for this one.
    return Settings.model_construct()


def _without_journal(source: Path, folder: Path) -> Path:
    """Return the file, or a copy in which SQLite has undone what a killed process left half done."""
    journal = Path(f"{source}-journal")
    if not journal.is_file() or not journal.stat().st_size:
        return source
    copy = folder / "damaged"
    shutil.copyfile(source, copy)
    shutil.copyfile(journal, f"{copy}-journal")
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(copy)) as raw:
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    log = Path(f"{source}-wal")
    if log.is_file():
        shutil.copyfile(log, f"{copy}-wal")
    return copy


def _revision(forest: Forest, catalogue: Catalogue) -> str | None:
    root = catalogue.root_of(VERSION)
    for number in forest.table(root).leaves if root else ():
        page = forest.pages.page(number)
        for cell in page.cells:
            with contextlib.suppress(DamageError):
                revision = forest.pages.record(page, cell)[0]
                if isinstance(revision, str):
                    return revision
    return None


def _meant(revision: str | None) -> str | None:
    """Return the revision that a text was before a byte or two of it were changed; any other one as it is."""
    for each in known_revisions():
        if revision and len(each) == len(revision) and sum(map(str.__ne__, each, revision)) <= 2:
            return each
    return revision


def _fill(
    new: Path, left_out: LeftOut, forest: Forest, catalogue: Catalogue, tell: Progress
) -> Mapping[str, SalvagedTable]:
    sound = read_sound(new)
    readings = [Reading(forest, found) for found in catalogue.tables(sound)]
    last_numbers = _walk_others(forest, catalogue, sound)
    told = {each.found.name: SalvagedTable() for each in readings if each.found.name not in MADE_ANEW}
    steps = sum(len(each.tree.leaves) for each in readings) or 1
    done = 0
    with filling(new, left_out) as file:
        for reading in readings:
            if reading.found.name in told:
                _keep(file, reading, reading.rows(), told[reading.found.name])
            done += len(reading.tree.leaves)
            tell("salvage", done, steps)
        indexed = {each.found.name: each.known() for each in readings if each.tree.holes}
        for reading, rows in _strays(forest, readings, indexed):
            if reading.found.name in told:
                _keep(file, reading, rows, told[reading.found.name])
        for reading in readings:
            if reading.found.name in told:
                _count_lost(reading, indexed.get(reading.found.name), told[reading.found.name])
        file.mend_links(told)
        for name, number in last_numbers.items():
            if name in told:
                file.set_number(name, number)
    return told


def _walk_others(
    forest: Forest, catalogue: Catalogue, sound: Mapping[str, tuple[str, Sequence[Column]]]
) -> dict[str, int]:
    """Walk the tables that are not copied, so that their pages belong to somebody; return the last numbers given."""
    numbers: dict[str, int] = {}
    for (kind, name), (_, root, _) in catalogue.entries.items():
        if kind != "table" or name in {VERSION, *sound} or root == 0:
            continue
        tree = forest.table(root)
        for leaf in tree.leaves if name == NUMBERS else ():
            page = forest.pages.page(leaf)
            for cell in page.cells:
                with contextlib.suppress(DamageError, ValueError):
                    table, number = forest.pages.record(page, cell)
                    if isinstance(table, str) and isinstance(number, int):
                        numbers[table] = number
    return numbers


def _keep(file: NewFile, reading: Reading, rows: Iterator[tuple[int, dict[str, object]]], told: SalvagedTable) -> None:
    name = reading.found.name
    for _, row in rows:
        told.read += 1
        why = reading.gate.refuse(row)
        if why is not None:
            file.leave_out(name, row, why, told)
        elif file.add(name, row, told):
            told.kept += 1


def _strays(
    forest: Forest, readings: Sequence[Reading], known: Mapping[str, Known]
) -> Iterator[tuple[Reading, Iterator[tuple[int, dict[str, object]]]]]:
    """Yield the rows of leaves that lost the page which led to them, where it is clear to which table they belong."""
    damaged = [each for each in readings if each.tree.holes]
    if not damaged:
        return
    for page in list(forest.strays()):
        numbers = forest.numbers(page)
        fitting = [
            each
            for each in damaged
            if each.has_room_for(numbers)
            and _are_known(numbers, known[each.found.name], knows_free=forest.knows_free)
            and each.could_be(page)
        ]
        if len(fitting) == 1:
            forest.taken.add(page.number)
            yield fitting[0], fitting[0].of_page(page)
        elif fitting:
            names = " or ".join(each.found.name for each in fitting)
            forest.pages.notes.append(f"a page of {len(numbers)} rows was left out, which are of {names}")


def _are_known(numbers: Sequence[int], known: Known, *, knows_free: bool) -> bool:
    """Tell whether the rows of a page are those that the table had last, and not what was left in a page set free."""
    if known.is_whole or not knows_free:
        return all(number in known.keys for number in numbers)
    return True


def _count_lost(reading: Reading, known: Known | None, told: SalvagedTable) -> None:
    if known is None or reading.seen is None:
        told.lost = reading.broken
        return
    missing = sorted(known.keys.keys() - reading.seen)
    told.lost = len(missing) if known.keys or known.is_whole else None
    told.lost_is_exact = known.is_whole
    told.lost_keys = [known.keys[number] or number for number in missing[:EXAMPLES]]


def _finish(new: Path, settings: Any) -> tuple[ConsistencyReport, Verification]:
    """Index what is searched, put right what no longer fits, and check the chains."""
    backend = open_sqlite(new, settings)
    try:
        repaired = repair(backend)
        search: SearchRepository[Blocking] = SearchRepository(_Runner(backend), sources=_SEARCHED)
        search.rebuild()
        audits = backend.run(Access.SNAPSHOT, "verify", _verify_chains, repeatable=True)
    finally:
        backend.close()
    return repaired, audits


class _Runner:
    """Runs the bodies of a repository on a backend."""

    in_transaction = False
    bell = None

    def __init__(self, backend: SQLiteBackend) -> None:
        self._backend = backend

    def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        """Run the body in a transaction of its own."""
        del may_lag
        return self._backend.run(access, name, body, repeatable=repeatable)


def _verify_chains(session: Session) -> Verification:
    return verify_chains(session, None)


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total
