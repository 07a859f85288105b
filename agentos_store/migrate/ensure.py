"""``ensure_migrations``: what a service calls at its start."""

from __future__ import annotations

import os
from functools import lru_cache

from sqlalchemy import URL

from agentos_store.engine.version import HEAD
from agentos_store.errors import InvalidValueError
from agentos_store.migrate.revisions import check_revision, known
from agentos_store.migrate.target import Target


def ensure_migrations(url: str | URL | None = None, *, schema: str | None = None, revision: str = "head") -> int:
    """Bring the database to the newest revision, or to the one named, and return how many revisions that took.

    Any number of processes may call it at once: one migrates, the others wait and then find nothing to do. All
    revisions of a call are one transaction, so a process that is killed leaves nothing half done. When there is nothing
    to do it takes no lock, does not import Alembic, and costs one small query. It only goes up: ``agentos-store db
    downgrade`` goes down. Raises SchemaMismatchError when the database is newer than this code.
    """
    wanted = HEAD if revision == "head" else revision
    if revision != "head" and wanted not in known():
        raise InvalidValueError("revision", f"there is no such revision; there are {', '.join(known())}")
    environment = tuple(sorted(item for item in os.environ.items() if item[0].upper().startswith("DATABASE_")))
    target = _target(url, schema, environment)
    found = target.revision()
    if found == wanted:
        return 0
    if found is not None:
        if found not in known():
            check_revision(found, where=target.describe())
        if known().index(found) >= known().index(wanted):
            return 0
    # Alembic takes 0.3 s to import, which a start with nothing to do should not pay for.
    from agentos_store.migrate.upgrade import upgrade

    return upgrade(target, wanted)


@lru_cache(maxsize=32)
def _target(url: str | URL | None, schema: str | None, environment: object) -> Target:
    """Resolve the target; the environment is a parameter so that a change of it is seen."""
    del environment
    return Target.of(url, schema=schema)
