"""SQLite, from inside: whether the file is whole, how it is kept, and how much of it is in use."""

from __future__ import annotations

from collections.abc import Iterator

from agentos_store.models import metadata
from agentos_store.operations.doctor.file import MIB
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import SQLitePatient
from agentos_store.operations.doctor.report import Finding, amount, some

SMALL = 64 * MIB
"""Bytes of a file that is read as a whole without being asked to."""

FREE_INSIDE, FREE_PART = 64 * MIB, 0.25
"""Bytes, and part of the file, that are free inside when vacuuming is worth it."""

STATISTICS = 32 * MIB
"""Bytes from which on it matters that the planner knows how many rows there are."""

REPORTED = 20
"""Faults that SQLite names at most."""


def journal(patient: SQLitePatient) -> Iterator[Finding]:
    """Look whether readers and writers can work at once, and what survives a power cut."""
    ((mode,),) = patient.ask("PRAGMA journal_mode")
    if mode != "wal":
        yield finding("journal-mode", f"the file is in the mode {mode}")
    if patient.settings.durability != "full":
        yield finding("durability", f"durability={patient.settings.durability}")


def wholeness(patient: SQLitePatient) -> Iterator[Finding]:
    """Let SQLite check the file: quickly, and where it is not large; or, deep, against its indexes too."""
    if not patient.deep and _size(patient) > SMALL:
        return
    pragma = "integrity_check" if patient.deep else "quick_check"
    faults = [row[0] for row in patient.ask(f"PRAGMA {pragma}({REPORTED})")]
    if faults != ["ok"]:
        # What SQLite says may quote a value, so that it is only counted.
        many = f"{len(faults)} or more" if len(faults) >= REPORTED else str(len(faults))
        yield finding("damaged", f"{pragma} finds {many} faults")


def foreign_keys(patient: SQLitePatient) -> Iterator[Finding]:
    """Look for rows that refer to rows that are gone."""
    if not patient.deep and _size(patient) > SMALL:
        return
    broken = patient.ask(
        'SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2'
    )
    if broken:
        yield finding("foreign-keys", some([f"{count:,} of {table} to {parent}" for table, parent, count in broken]))


def space(patient: SQLitePatient) -> Iterator[Finding]:
    """Look how much of the file is free, and whether there are statistics."""
    ((free, pages, page),) = patient.ask(
        "SELECT freelist_count, page_count, page_size FROM pragma_freelist_count, pragma_page_count, pragma_page_size"
    )
    if free * page > FREE_INSIDE and free > pages * FREE_PART:
        yield finding("space-inside", f"{amount(free * page)} of {amount(pages * page)} are free")
    if pages * page > STATISTICS and not patient.ask("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'"):
        yield finding("statistics-missing", f"a file of {amount(pages * page)} was never analysed")


def numbers(patient: SQLitePatient) -> Iterator[Finding]:
    """Look whether the numbers that were drawn last are known."""
    drawn = dict(patient.ask("SELECT name, seq FROM sqlite_sequence"))
    behind = []
    for table in metadata.sorted_tables:
        column = next((each.name for each in table.columns if each.identity is not None), None)
        if column is None:
            continue
        ((highest,),) = patient.ask(f'SELECT coalesce(max("{column}"), 0) FROM "{table.name}"')
        if highest > drawn.get(table.name, 0):
            behind.append(f"{table.name}: {drawn.get(table.name, 0):,} was drawn last, and there is {highest:,}")
    if behind:
        yield finding("sequence-behind", some(behind))


CHECKS = (journal, wholeness, foreign_keys, space)
"""What can be asked whatever the schema is."""

CHECKS_OF_SCHEMA = (numbers,)


def _size(patient: SQLitePatient) -> int:
    return patient.path.stat().st_size
