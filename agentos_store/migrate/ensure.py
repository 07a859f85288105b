"""``ensure_migrations``: what a service calls at its start."""

from __future__ import annotations

import os
from functools import lru_cache

from sqlalchemy import URL

from agentos_store.migrate.revisions import check_known, known, resolve
from agentos_store.migrate.target import Target


def ensure_migrations(url: str | URL | None = None, *, schema: str | None = None, revision: str = "head") -> int:
    """Bring the database to the newest revision, or to the one named, and return how many revisions that took.

    Any number of processes may call it at once: one migrates, the others wait and then find nothing to do. All
    revisions of a call are one transaction, so a process that is killed leaves nothing half done. When there is nothing
    to do it takes no lock, does not import Alembic, and costs one small query. It only goes up: ``agentos-store db
    downgrade`` goes down. Raises SchemaMismatchError when the database is newer than this code, LockTimeoutError when
    another migrator or a lock on a table kept it waiting too long, and UnavailableError when there is no database.
    """
    wanted = resolve(revision)
    target = _target(url, schema, *_surroundings())
    found = target.revision()
    if found == wanted:
        return 0
    check_known(found, where=target.describe())
    if found is not None and known().index(found) >= known().index(wanted):
        return 0
    # Alembic takes 0.3 s to import, which a start with nothing to do should not pay for.
    from agentos_store.migrate.upgrade import upgrade

    return upgrade(target, wanted)


@lru_cache(maxsize=32)
def _target(url: str | URL | None, schema: str | None, environment: object, env_file: object) -> Target:
    """Resolve the target; what it is resolved from is a parameter, so that a change of it is seen."""
    del environment, env_file
    return Target.of(url, schema=schema)


def _surroundings() -> tuple[object, object]:
    """Return what the settings depend on: the variables, and the state of the file ``.env`` here."""
    # By their names alone, which are few beside all that an environment holds: each look at a value decodes it.
    environment = tuple([(name, os.environ.get(name)) for name in os.environ if name.upper().startswith("DATABASE_")])
    try:
        found = os.stat(".env")  # noqa: PTH116  half the time of a Path
    except OSError:
        return environment, None
    return environment, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
