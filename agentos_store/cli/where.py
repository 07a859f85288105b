"""Which database a command is about."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sqlalchemy import URL

    from agentos_store import Store
    from agentos_store.migrate.target import Target


@dataclass(frozen=True, slots=True)
class Where:
    """The database that was named on the command line, if one was."""

    url: str | URL | None
    schema: str | None

    def open(self, *, create: bool = False) -> Store:
        """Open the store; NotFoundError for an SQLite file that is not there, unless it may be created.

        A slip in its name would otherwise be answered with an empty store.
        """
        # The store and pydantic take half a second to import, which listing and completing commands should not pay for.
        from agentos_store import Store
        from agentos_store.errors import NotFoundError
        from agentos_store.migrate.revisions import check_revision
        from agentos_store.migrate.target import Target
        from agentos_store.settings import Settings

        settings = Settings.load()
        target = Target.of(self.url, schema=self.schema, settings=settings)
        if target.path is not None:
            if not create and not target.path.exists():
                raise NotFoundError("database file", str(target.path))
            # Asked before the store is opened, which leaves its mark on a file that may be somebody else's.
            found = target.revision()
            if found is None and settings.auto_migrate == "verify" and not (create and _is_blank(target)):
                check_revision(found, where=target.describe())
        return Store.open(target.url, schema=self.schema, settings=settings)


def _is_blank(target: Target) -> bool:
    from agentos_store.engine.sqlite.connect import connect_reader, roll_back_journal

    path = target.path
    if path is None or not path.exists() or not path.stat().st_size:
        return True
    roll_back_journal(path, busy_timeout=target.settings.busy_timeout)
    with closing(connect_reader(path, busy_timeout=target.settings.busy_timeout)) as raw:
        return raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def where(context: typer.Context) -> Where:
    """Return the database of a command."""
    found = context.obj
    assert isinstance(found, Where)
    return found
