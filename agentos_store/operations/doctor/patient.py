"""The database that is looked at: questions that only read and take no longer than they may."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import bindparam, func, literal_column, select

from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.connect import connect_reader
from agentos_store.engine.sqlite.connection import SQLiteConnection
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.statement import Statement
from agentos_store.engine.version import read_revision_sqlite
from agentos_store.migrate.target import Target
from agentos_store.operation import Access, Repository, Runner, run_body
from agentos_store.types import Text

if TYPE_CHECKING:
    from agentos_store.engine.bell import Bell

R = TypeVar("R")
T = TypeVar("T", bound=Repository[Any])

LIMIT, DEEP_LIMIT = 5.0, 1800.0
"""Seconds for one question."""

QUESTIONS, GRACE = 4, 10.0
"""Times the limit, and seconds more, after which a check is given up although the database does not answer at all."""

PATIENCE = 1.0
"""Seconds that a question waits for a lock."""

INTERRUPTED = ("SQLITE_INTERRUPT", "57014")
"""The codes of a question that took longer."""

STEPS = 20_000
"""Steps of SQLite's machine between two looks at the clock."""


class Patient(ABC):
    """What is the same of both databases."""

    def __init__(
        self, target: Target, open_backend: Callable[[], Backend], *, deep: bool = False, in_use: bool = False
    ) -> None:
        self.target = target
        self.in_use = in_use
        """Whether the backend is that of a store which is at work."""
        self.settings = target.settings
        self.deep = deep
        self.limit = DEEP_LIMIT if deep else LIMIT
        self.patience = PATIENCE
        self.longest = QUESTIONS * self.limit + GRACE
        self._open = open_backend
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The open database, opened when it is first needed."""
        if self._backend is None:
            self._backend = self._open()
        return self._backend

    @abstractmethod
    def ask(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""

    @abstractmethod
    def revision(self) -> str | None:
        """Return the revision of the schema; None when it has none."""

    def close(self) -> None:  # noqa: B027  not each has opened something
        """Give back what was opened for the questions; the backend is its opener's."""

    @abstractmethod
    def read(self, body: Callable[[Session], R]) -> R:
        """Run a body that only reads, at one moment."""

    @property
    def runner(self) -> Runner:
        """What runs the reading bodies of repositories here."""
        return _Reading(self)

    def bind(self, repository: type[T]) -> T:
        """Return a repository whose reading operations are run here."""
        return repository(self.runner)


class SQLitePatient(Patient):
    """An SQLite file, read through a connection that cannot write and belongs to nobody else."""

    _raw: sqlite3.Connection | None = None

    @property
    def path(self) -> Path:
        """The file, behind symbolic links."""
        path = self.target.path
        assert path is not None
        return path.absolute().resolve()

    def ask(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.connection() as raw:
            return raw.execute(text, values).fetchall()

    def read(self, body: Callable[[Session], R]) -> R:
        """Run a body that only reads, at one moment."""
        with self.connection() as raw:
            raw.execute("BEGIN")
            try:
                return run_body(body, Session(SQLiteConnection(raw, self.settings.max_payload), Call(), read_only=True))
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

    def revision(self) -> str | None:
        """Return the revision of the schema; None when it has none."""
        with self.connection() as raw:
            return read_revision_sqlite(raw)

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection; what is asked of it ends when its time is over."""
        end = time.monotonic() + self.limit
        try:
            raw = self._connect()
            raw.set_progress_handler(lambda: time.monotonic() > end, STEPS)
            yield raw
        except sqlite3.Error as error:
            raise translate(error, waited=self.patience) from None

    def _connect(self) -> sqlite3.Connection:
        # One for all, since each that is opened has to read the schema first.
        if self._raw is None:
            self._raw = connect_reader(self.path, busy_timeout=self.patience)
        return self._raw

    def close(self) -> None:
        """Close the connection."""
        if self._raw is not None:
            self._raw.close()


class PostgreSQLPatient(Patient):
    """A schema on a PostgreSQL server, asked in transactions that only read, with limits of their own."""

    @property
    def schema(self) -> str:
        """The schema's name."""
        assert self.target.schema is not None
        return self.target.schema

    def ask(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.backend.raw_connection() as cursor:
            # Local to the transaction: through a pooler the connection is somebody else's next.
            cursor.execute(
                f"BEGIN READ ONLY; SET LOCAL statement_timeout = {round(self.limit * 1000)};"
                f" SET LOCAL lock_timeout = {round(self.patience * 1000)}",
                prepare=False,
            )
            rows: list[tuple[Any, ...]] = cursor.execute(text, values or None, prepare=False).fetchall()
            cursor.execute("ROLLBACK", prepare=False)
            return rows

    def revision(self) -> str | None:
        """Return the revision of the schema; None when it has none."""
        return self.backend.revision()

    def read(self, body: Callable[[Session], R]) -> R:
        """Run a body that only reads, at one moment."""
        limit = str(round(self.limit * 1000))

        def limited(session: Session) -> R:
            session.first(_LIMITS, {"limit": limit, "patience": str(round(self.patience * 1000))})
            return body(session)

        found: R = self.backend.run(Access.SNAPSHOT, "doctor", limited, repeatable=True)
        return found


class _Reading:
    """Runs the reading bodies of repositories."""

    in_transaction = False
    bell: Bell | None = None

    def __init__(self, patient: Patient) -> None:
        self._patient = patient

    def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        """Run the body where the patient is; one that writes fails there."""
        del access, name, repeatable, may_lag
        return self._patient.read(body)


def _set(name: str, value: str) -> Any:
    return func.set_config(literal_column(f"'{name}'"), bindparam(value, type_=Text()), literal_column("true"))


_LIMITS: Statement[Any] = Statement(select(_set("statement_timeout", "limit"), _set("lock_timeout", "patience")))
