"""``python -m agentos_store.testing.check``: revisions, models and this code belong together.

For those who work on the library. A line for each check; the exit code is 1 when one of them found something.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from agentos_store.engine.version import HEAD
from agentos_store.errors import UnavailableError
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.revisions import scripts
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import upgrade
from agentos_store.settings import Settings

_PACKAGE_IMPORT = re.compile(r"^\s*(?:from|import)\s+agentos_store\b", re.MULTILINE)


def check_one_head(directory: ScriptDirectory) -> Iterator[str]:
    """Yield what is wrong about the newest revision."""
    heads = directory.get_heads()
    if len(heads) != 1:
        yield f"there is not one head: {', '.join(heads) or 'no revision at all'}"
    elif heads[0] != HEAD:
        yield f"the newest revision is {heads[0]}, but engine/version.py says {HEAD}"


def check_chain(directory: ScriptDirectory) -> Iterator[str]:
    """Yield where the revisions are not one chain whose order is that of the files' names."""
    revisions = sorted(directory.walk_revisions(), key=_file)
    for script in revisions:
        if _file(script) != script.revision:
            yield f"{_file(script)}.py holds revision {script.revision}"
    previous: str | None = None
    for script in revisions:
        if script.down_revision != previous:
            yield f"{script.revision} follows {script.down_revision}, not {previous}"
        previous = script.revision


def check_texts(directory: ScriptDirectory) -> Iterator[str]:
    """Yield the revisions that a later version of the package could change, or that rewrite without saying so."""
    for script in directory.walk_revisions():
        text = Path(script.path).read_text(encoding="utf-8")
        if _PACKAGE_IMPORT.search(text):
            yield f"{script.revision} imports from the package, so what it does would change with the package"
        rewrites = getattr(script.module, "REWRITES", ())
        if not isinstance(rewrites, tuple) or not set(rewrites) <= {"upgrade", "downgrade"}:
            yield f'{script.revision}: REWRITES holds "upgrade", "downgrade" or both, as a tuple'
        if "op.rebuild_table(" in text and not rewrites:
            yield f"{script.revision} rebuilds a table without REWRITES, so that nothing would be backed up"


def check_sqlite() -> Iterator[str]:
    """Yield how a new SQLite file differs from the models."""
    with tempfile.TemporaryDirectory() as directory:
        yield from _drift(f"sqlite:///{directory}/registry.sqlite")


def check_postgresql() -> Iterator[str]:
    """Yield how a new PostgreSQL database differs from the models."""
    from agentos_store.testing import Databases, PostgresServer

    with PostgresServer() as server:
        databases = Databases(server.url)
        if not databases.can_create():
            raise UnavailableError("the user may not create databases")
        url = databases.create()
        try:
            yield from _drift(url)
        finally:
            databases.drop(url)


def main() -> int:
    """Run every check, print a line for each, and return the exit code."""
    directory = open_scripts(scripts())
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "one head, and it is this code's": lambda: check_one_head(directory),
        "one chain, in the order of the files": lambda: check_chain(directory),
        "revisions that stay as they are": lambda: check_texts(directory),
        "no drift on SQLite": check_sqlite,
        "no drift on PostgreSQL": check_postgresql,
    }
    failed = False
    for name, check in checks.items():
        try:
            findings = list(check())
        except UnavailableError as error:
            # Whoever works on the library without PostgreSQL still gets the other checks, and is told.
            _print(f"not checked: {name}: {error}")
            continue
        failed = failed or bool(findings)
        _print(f"{'wrong' if findings else 'ok'}: {name}", *(f"  {finding}" for finding in findings))
    return int(failed)


def open_scripts(folder: Path) -> ScriptDirectory:
    """Return Alembic's view of a folder of revisions."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _drift(url: str) -> Iterator[str]:
    # What the developer's environment says about a database is not meant for this one.
    settings = Settings.model_construct()
    target = Target.of(url, settings=settings)
    upgrade(target, HEAD)
    yield from (str(difference) for difference in find_drift(target, alone=True))


def _file(script: Script) -> str:
    return Path(script.path).stem


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
