"""The examination: one check after another, each of which may fail without a word being lost about the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from agentos_store.engine.backend import Backend
from agentos_store.engine.version import HEAD
from agentos_store.errors import LockTimeoutError, NotFoundError, StoreError, UnavailableError
from agentos_store.migrate.target import Target
from agentos_store.operations.aside import Aside
from agentos_store.operations.doctor import data, file, inside, load, schema, server, tables
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import INTERRUPTED, Patient, PostgreSQLPatient, SQLitePatient
from agentos_store.operations.doctor.report import GRAVITY, Diagnosis, Finding

R = TypeVar("R")
Check = Callable[[Any], Iterator[Finding]]

GONE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_READONLY", "08", "57P", "53300", "pool")
"""The codes of a database that nothing more can be asked of."""

MOST_WAITS = 3
"""Checks that may wait for a lock in vain."""

DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def diagnose(backend: Backend, *, deep: bool = False) -> Diagnosis:
    """Look at a database that is open."""
    target = Target(backend.url, backend.schema, backend.settings)
    return _examine(target, lambda: backend, deep=deep, in_use=True)


def examine(target: Target, open_backend: Callable[[Target], Backend], *, deep: bool = False) -> Diagnosis:
    """Look at a database that need not be such that a store opens it.

    Raises NotFoundError for an SQLite file that does not exist.
    """
    if target.path is not None and not target.path.exists():
        raise NotFoundError("database file", str(target.path))
    opened: list[Backend] = []
    over = threading.Event()

    def open_it() -> Backend:
        # Whatever its schema is.
        settings = target.settings.model_copy(update={"auto_migrate": "off"})
        backend = open_backend(Target(target.url, target.schema, settings))
        opened.append(backend)
        if over.is_set():
            # Nobody waited for it.
            _close(opened)
        return backend

    try:
        return _examine(target, open_it, deep=deep)
    finally:
        over.set()
        _close(opened)


def _close(opened: list[Backend]) -> None:
    # Where a question was given up its transaction may still be open; and of two that close one finds nothing left.
    with suppress(UnavailableError, IndexError):
        opened.pop().close()


def _examine(target: Target, open_backend: Callable[[], Backend], *, deep: bool, in_use: bool = False) -> Diagnosis:
    kind = SQLitePatient if target.schema is None else PostgreSQLPatient
    patient = kind(target, open_backend, deep=deep, in_use=in_use)
    rounds = _Rounds(patient)
    try:
        return rounds.of_sqlite() if target.schema is None else rounds.of_postgresql()
    finally:
        # A thread that was left behind may still be at work with it.
        if not rounds.gave_up:
            patient.close()


class _Rounds:
    """Makes checks and keeps what they find."""

    def __init__(self, patient: Any) -> None:
        self._patient: Patient = patient
        self._found: list[Finding] = []
        self._made = 0
        self._aside = Aside()
        self._waits = 0
        self.gave_up = False
        """Whether a check was left behind that got no answer at all."""
        self._lost = False
        """Whether there is no sense in asking on."""

    def of_sqlite(self) -> Diagnosis:
        import sqlite3

        self._make(file.CHECKS)
        self._make(inside.CHECKS)
        if self._has_our_schema():
            self._make((*schema.CHECKS, *inside.CHECKS_OF_SCHEMA, *data.CHECKS, data.growth))
        return self._diagnosis(f"SQLite {sqlite3.sqlite_version}")

    def of_postgresql(self) -> Diagnosis:
        try:
            backend = self._ask(lambda: self._patient.backend)
        except StoreError as error:
            self._add(finding("cannot-open", str(error)))
            return self._diagnosis("unknown")
        if backend is None:
            self._add(finding("cannot-open", f"no answer within {self._patient.longest:g} s"))
            return self._diagnosis("unknown")
        self._make((*server.CHECKS, *load.CHECKS, *tables.CHECKS))
        if self._has_our_schema():
            self._make((*server.CHECKS_OF_SCHEMA, *load.CHECKS_OF_SCHEMA, *tables.CHECKS_OF_SCHEMA))
            self._make((*schema.CHECKS, *data.CHECKS))
        return self._diagnosis(f"PostgreSQL {backend.capabilities.server_version}")

    def _has_our_schema(self) -> bool:
        found: list[str | None] = []

        def revision(patient: Patient) -> Iterator[Finding]:
            found.append(patient.revision())
            yield from schema.revision(found[0])

        self._make((revision,))
        return found == [HEAD]

    def _make(self, checks: Sequence[Check]) -> None:
        for check in checks:
            if self._lost:
                return
            try:
                found = self._ask(partial(_all_of, check, self._patient))
            except UnavailableError as error:
                self._add(self._meaning(check, error))
            except Exception as error:  # noqa: BLE001  a fault of the doctor's own is no reason to say nothing
                self._add(finding("check-failed", f"{_name(check)}: {_words(error)}"))
            else:
                if found is None:
                    self._lost = True
                    what = f"{_name(check)} got no answer within {self._patient.longest:g} s"
                    self._add(finding("check-failed", f"{what}; the rest was not looked at"))
                    return
                for each in found:
                    self._add(each)
                self._made += 1

    def _ask(self, work: Callable[[], R]) -> R | None:
        """Return what came of it; None when the database does not answer, whatever limits it was told."""
        answer = self._aside.ask(work, self._patient.longest)
        self.gave_up = answer is None
        return None if answer is None else answer.result()

    def _meaning(self, check: Check, error: UnavailableError) -> Finding:
        code = error.code or ""
        if code in INTERRUPTED:
            return finding("check-unfinished", f"{_name(check)} took longer than {self._patient.limit:g} s")
        if code.startswith(DAMAGED):
            self._lost = code == "SQLITE_NOTADB"
            return finding("damaged", f"{_name(check)}: {error.why}")
        self._waits += isinstance(error, LockTimeoutError)
        # Each further check would wait for as long, and find the same.
        self._lost = self._waits == MOST_WAITS or not code or code.startswith(GONE)
        kind = "cannot-open" if code.startswith("SQLITE_CANTOPEN") else "check-failed"
        return finding(kind, f"{_name(check)}: {error}" + ("; the rest was not looked at" if self._lost else ""))

    def _add(self, found: Finding) -> None:
        if found not in self._found:
            self._found.append(found)

    def _diagnosis(self, version: str) -> Diagnosis:
        found = sorted(self._found, key=lambda each: (GRAVITY[each.severity], each.code))
        patient = self._patient
        return Diagnosis(patient.target.describe(), version, patient.deep, self._made, tuple(found))


def _all_of(check: Check, patient: Patient) -> list[Finding]:
    return list(check(patient))


def _name(check: Check) -> str:
    return check.__name__.replace("_", " ")


def _words(error: Exception) -> str:
    # An error that is not ours may quote a value.
    return str(error) if isinstance(error, StoreError) else type(error).__name__
