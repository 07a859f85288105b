"""Where the databases of a run live: files in a temporary directory, databases of a server that is started for it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import make_url

from agentos_store import Store, ensure_migrations
from agentos_store.testing import Databases, PostgresServer
from benchmarks import rows
from benchmarks.handwritten import TASKS
from benchmarks.measure import NotHonestError
from benchmarks.ours import Ours
from benchmarks.raw_postgresql import RawPostgreSQL
from benchmarks.raw_sqlite import RawSQLite
from benchmarks.tables import engine_of

Raw = RawSQLite | RawPostgreSQL
RAW_OF: dict[str, type[Raw]] = {"sqlite": RawSQLite, "postgresql": RawPostgreSQL}
"""By the backend."""

FIRST_TASK = "01BENCHMARK000000000000000"
"""A task that is pending, in every database."""

SEEDED = 2 * rows.PAGE * (rows.DEEP_PAGE + 5)
"""Tasks of a database for reading; every other one has the status that is listed."""


class Place(Protocol):
    """Makes databases of one kind."""

    @property
    def name(self) -> str:
        """The backend."""

    @property
    def version(self) -> str:
        """What runs the databases."""

    def database(self) -> str:
        """Return the URL of a new database that is migrated and holds one task."""

    def copy(self, url: str) -> str:
        """Return the URL of a copy of a database that has settled; it is only there to be copied from now on."""

    def raw(self, url: str) -> Raw:
        """Return the driver alone."""

    def drop(self, url: str) -> None:
        """Remove a database that nobody needs any more, before the place is left."""

    def settle(self, url: str) -> None:
        """Do what a database would have done by itself some time after many rows were added."""


class SQLitePlace:
    """Files in one directory."""

    name = "sqlite"

    def __init__(self, directory: Path) -> None:
        self.version = f"SQLite {sqlite3.sqlite_version}"
        self._directory = directory
        self._count = 0
        self._template = directory / "template.sqlite"
        _prepare(f"sqlite:///{self._template}")

    def database(self) -> str:
        """Copy the template."""
        return self._copy(self._template)

    def copy(self, url: str) -> str:
        """Copy the file."""
        path = make_url(url).database
        assert path is not None
        return self._copy(Path(path))

    def _copy(self, path: Path) -> str:
        self._count += 1
        return f"sqlite:///{shutil.copy(path, self._directory / f'{self._count}.sqlite')}"

    def raw(self, url: str) -> Raw:
        """Return the driver alone."""
        return RawSQLite.open(url)

    def drop(self, url: str) -> None:
        """Remove the file and those that belong to it."""
        path = make_url(url).database
        assert path is not None
        for file in (Path(path), Path(f"{path}-wal"), Path(f"{path}-shm")):
            file.unlink(missing_ok=True)

    def settle(self, url: str) -> None:
        """Bring the log into the file."""
        with contextlib.closing(RawSQLite.open(url)) as raw:
            raw.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class PostgreSQLPlace:
    """Databases of one server."""

    name = "postgresql"

    def __init__(self, server: PostgresServer) -> None:
        self._databases = Databases(server.url)
        self._made: list[str] = []
        self._template = self._new(None)
        _prepare(self._template)
        self._databases.seal(self._template)
        asked = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        with contextlib.closing(RawPostgreSQL.open(server.url)) as raw:
            version, *settings = (raw.setting(name) for name in asked)
        told = ", ".join(f"{name}={value}" for name, value in zip(asked[1:], settings, strict=True))
        self.version = f"PostgreSQL {version} ({server.source}; {told})"

    def database(self) -> str:
        """Copy the template."""
        return self._new(self._template)

    def copy(self, url: str) -> str:
        """Let the server copy it."""
        # Whoever connected meanwhile would be in the way, autovacuum too.
        self._databases.seal(url)
        return self._new(url)

    def _new(self, template: str | None) -> str:
        self._made.append(self._databases.create(template))
        return self._made[-1]

    def close(self) -> None:
        """Drop the databases: the server may be somebody's."""
        for url in self._made:
            self._databases.drop(url)

    def raw(self, url: str) -> Raw:
        """Return the driver alone."""
        return RawPostgreSQL.open(url)

    def drop(self, url: str) -> None:
        """Let the server drop it."""
        self._databases.drop(url)
        self._made.remove(url)

    def settle(self, url: str) -> None:
        """Let the planner know the rows."""
        with contextlib.closing(RawPostgreSQL.open(url)) as raw:
            raw.connection.execute("VACUUM ANALYZE")


@contextlib.contextmanager
def open_place(backend: str, directory: Path) -> Iterator[Place]:
    """Open the place of a backend; what it holds is gone afterwards."""
    if backend == "sqlite":
        yield SQLitePlace(directory)
    else:
        with PostgresServer(fsync=True) as server, contextlib.closing(PostgreSQLPlace(server)) as place:
            yield place


def seed(place: Place) -> str:
    """Return the URL of a database with many tasks, to be read."""
    url = place.database()
    engine = engine_of(url)
    keys = rows.numbered_keys("T")
    task = {"title": rows.TITLE, "task_type": "", "priority": 0, "payload": rows.PAYLOAD, "attempts": 0}
    task |= {"max_attempts": 3, "lease_token": 0, "version": 1, "metadata": rows.METADATA}
    with engine.begin() as connection:
        statuses = (rows.LISTED, "completed")
        many = [
            {**task, "task_id": next(keys), "status": statuses[number % 2], "created_at": at, "updated_at": at}
            for number in range(SEEDED)
            for at in (rows.now(),)
        ]
        connection.execute(TASKS.insert(), many)
    engine.dispose()
    place.settle(url)
    return url


def verify(urls: dict[str, str], *, expected: int) -> None:
    """See that each contestant has recorded as many audits as it should, in a chain that the library accepts."""
    for name, url in urls.items():
        with Store.open(url) as store:
            found = store.audits.count()
            if found != expected:
                raise NotHonestError(f"{name} has recorded {found} audits, not {expected}")
            verification = store.audits.verify()
            if not verification.ok or verification.entries != expected:
                raise NotHonestError(f"{name}: {verification}")


def _prepare(url: str) -> None:
    ensure_migrations(url)
    with contextlib.closing(Ours.open(url)) as ours:
        ours.store.tasks.create(task_id=FIRST_TASK, title=rows.TITLE, enqueue=True)
