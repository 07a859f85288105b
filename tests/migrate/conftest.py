"""What the tests of the migrations share: a look at a database past the library, and scripts in other processes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentos_store.engine.version import quote_name
from agentos_store.migrate.target import Target

Execute = Callable[..., list[tuple[Any, ...]]]
"""``execute(target, statement, …)``: run the statements in autocommit and return the last one's rows."""

Run = Callable[..., Any]
"""``run(script, argument, …)``: run Python code in a process of its own and return the JSON that it printed."""

CHECKOUT = Path(__file__).resolve().parents[2]


@contextmanager
def connected(target: Target) -> Iterator[Any]:
    if target.path is not None:
        with closing(sqlite3.connect(target.path, isolation_level=None)) as raw:
            yield raw
        return
    from agentos_store.testing.postgres import connect

    assert target.schema is not None
    with closing(connect(target.url)) as server:
        server.execute(f"SET search_path TO {quote_name(target.schema)}".encode())
        yield server


@pytest.fixture
def execute() -> Execute:
    def run(target: Target, *statements: str) -> list[tuple[Any, ...]]:
        with connected(target) as raw:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = raw.execute(statement if target.path is not None else statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows

    return run


@pytest.fixture
def connect() -> Callable[[Target], Any]:
    """``with connect(target) as raw``: a driver's connection in autocommit."""
    return connected


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(script: str, *arguments: str, **environment: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)} | environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def empty_target(empty_url: str) -> Target:
    return Target.of(empty_url)


@pytest.fixture
def target(url: str) -> Target:
    return Target.of(url)


@pytest.fixture
def role(postgres_database: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database for a role that may log in and do nothing else."""
    from agentos_store.testing.postgres import connect

    target = Target.of(postgres_database)
    name = f"role_{os.getpid()}"
    with closing(connect(target.url)) as server:
        server.execute(f"CREATE ROLE {name} LOGIN".encode())
        yield target.url.set(username=name).render_as_string(hide_password=False)
        server.execute(f"DROP OWNED BY {name}".encode())
        server.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def revise(tmp_path: Path) -> Callable[..., Path]:
    """``revise(number, upgrade=…, downgrade=…, rewrites=…)``: add a revision to a copy of the folder of revisions."""
    folder = tmp_path / "migrations"
    shutil.copytree(CHECKOUT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))

    def revise(name: str, *, upgrade: str, downgrade: str = "pass", rewrites: tuple[str, ...] = ()) -> Path:
        previous = max(path.stem for path in folder.glob("versions/*.py"))
        (folder / "versions" / f"{name}.py").write_text(
            f'''"""Made for a test."""
import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{previous}"
branch_labels = None
depends_on = None
REWRITES = {rewrites!r}


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''
        )
        return folder

    return revise


@pytest.fixture
def alembic(tmp_path: Path) -> Callable[..., None]:
    """``alembic(folder, target, "upgrade", "head")``: what the command does, in this process."""
    from alembic import command
    from alembic.config import Config

    def run(folder: Path, target: Target, name: str, *arguments: str) -> None:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        said = [f"url={target.url.render_as_string(hide_password=False)}"]
        if target.schema is not None:
            said.append(f"schema={target.schema}")
        config.cmd_opts = Namespace(x=said)
        getattr(command, name)(config, *arguments)

    return run
