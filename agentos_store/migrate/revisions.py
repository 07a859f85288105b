"""Which revisions there are, told from the files' names, so that Alembic need not be imported to ask."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from agentos_store.engine.version import HEAD, UNFINISHED
from agentos_store.errors import InvalidValueError, SchemaMismatchError

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def scripts() -> Path:
    """Return the folder of the migrations: in a wheel inside the package, in a checkout beside it."""
    inside = _PACKAGE / "migrations"
    return inside if inside.is_dir() else _PACKAGE.parent / "migrations"


def alembic_ini() -> Path:
    """Return the alembic.ini that belongs to the folder."""
    return scripts().parent / "alembic.ini"


@cache
def known() -> tuple[str, ...]:
    """Return the revisions in their order; a file bears its revision's name, which begins with its number."""
    return tuple(sorted(path.stem for path in (scripts() / "versions").glob("[0-9]*.py")))


def resolve(revision: str) -> str:
    """Return the revision of that name, ``"head"`` for the newest; InvalidValueError when there is none."""
    if revision == "head":
        return HEAD
    if revision not in known():
        raise InvalidValueError("revision", f"there is no such revision; there are {', '.join(known())}")
    return revision


def check_known(found: str | None, *, where: str) -> None:
    """Raise SchemaMismatchError for a revision that this code does not know; none at all is in order."""
    if found is None or found in known():
        return
    if found == UNFINISHED:
        why = (
            f"{where} holds an unfinished copy or restore; run the same command again to finish it,"
            " or with --restart to begin anew"
        )
    elif found > HEAD:
        why = f"{where} is at revision {found}, which is newer than this code; it needs a newer agentos-store"
    else:
        why = f"{where} is at revision {found}, which this code never had; another branch or program made it"
    raise SchemaMismatchError(found=found, expected=HEAD, why=why)


def check_revision(found: str | None, *, where: str) -> None:
    """Raise SchemaMismatchError unless the database is at the revision that this code is written for."""
    if found == HEAD:
        return
    check_known(found, where=where)
    if found is None:
        why = f"{where} has no schema of this store yet; run ensure_migrations() or 'agentos-store db upgrade'"
    else:
        why = f"{where} is at revision {found}, before {HEAD}; run ensure_migrations() or 'agentos-store db upgrade'"
    raise SchemaMismatchError(found=found, expected=HEAD, why=why)
