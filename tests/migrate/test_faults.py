from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import InvalidValueError, StoreError, UnavailableError, ensure_migrations
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target

# Root may write anywhere, so the process becomes somebody else once everything is imported.
UNPRIVILEGED = """
import json, os, sys
import agentos_store.migrate.environment, agentos_store.migrate.drift, agentos_store.settings
import agentos_store.store.opening, agentos_store.engine.sqlite.backend
from agentos_store import StoreError, ensure_migrations
from agentos_store.migrate.revisions import known
known()
if os.geteuid() == 0:
    os.chdir("/")
    os.setgid(65534)
    os.setuid(65534)
found = []
for url in sys.argv[2:]:
    try:
        found.append(ensure_migrations(url, revision=sys.argv[1]))
    except StoreError as error:
        found.append([type(error).__name__, str(error)])
print(json.dumps(found))
"""


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        # Bound and not listening: nobody else can take the port meanwhile.
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_server_that_is_down_is_unavailable(closed_port: int) -> None:
    with pytest.raises(UnavailableError, match="cannot connect") as caught:
        ensure_migrations(f"postgresql://someone:secret@127.0.0.1:{closed_port}/nothing")
    assert "secret" not in str(caught.value)
    with pytest.raises(UnavailableError, match="cannot connect"):
        find_drift(Target.of(f"postgresql://127.0.0.1:{closed_port}/nothing"))


def test_a_login_that_is_refused_is_unavailable(postgres_database: str) -> None:
    url = Target.of(postgres_database).url.set(username="nobody_of_that_name", password="secret")
    with pytest.raises(UnavailableError, match="cannot connect") as caught:
        ensure_migrations(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_exist_is_unavailable(postgres_database: str) -> None:
    with pytest.raises(UnavailableError, match="cannot connect"):
        ensure_migrations(Target.of(postgres_database).url.set(database="no_database_of_that_name"))


def test_a_role_that_may_not_create_tables_is_told_so(role: str) -> None:
    with pytest.raises(UnavailableError, match="privilege"):
        ensure_migrations(role)
    with pytest.raises(UnavailableError, match="privilege"):
        ensure_migrations(role, schema="of_its_own")


def test_a_role_that_may_not_read_the_schema_is_told_so(
    role: str, postgres_database: str, execute: Callable[..., Any]
) -> None:
    ensure_migrations(postgres_database, schema="closed")
    with pytest.raises(UnavailableError, match="privilege"):
        ensure_migrations(role, schema="closed")


def test_a_database_that_only_reads_is_unavailable(postgres_database: str, execute: Callable[..., Any]) -> None:
    target = Target.of(postgres_database)
    execute(target, f"ALTER DATABASE {target.url.database} SET default_transaction_read_only = on")
    with pytest.raises(UnavailableError, match="only accepts reads"):
        ensure_migrations(postgres_database)


@pytest.mark.parametrize("content", [b"This is a letter, not a database. " * 100, b"short"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="not an SQLite database"):
        ensure_migrations(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.sqlite"
    ensure_migrations(f"sqlite:///{path}", revision=known()[0])
    content = bytearray(path.read_bytes())
    content[100:4096] = os.urandom(3996)
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="damaged"):
        ensure_migrations(f"sqlite:///{path}")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ensure_migrations(f"sqlite:///{tmp_path}")


def test_a_database_in_memory_cannot_be_migrated_for_others() -> None:
    with pytest.raises(InvalidValueError, match="in memory"):
        ensure_migrations("sqlite://")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that everybody can enter and only this user can write to."""
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


def test_a_directory_that_cannot_be_written_to_is_unavailable(shared: Path, run: Callable[..., Any]) -> None:
    shared.chmod(0o555)
    files = [f"sqlite:///{shared}/registry.sqlite", f"sqlite:///{shared}/below/registry.sqlite"]
    (here, why), (below, _) = run(UNPRIVILEGED, "head", *files)
    assert (here, below) == ("UnavailableError", "UnavailableError")
    assert "cannot be created" in why


def test_a_file_that_cannot_be_written_to_is_unavailable(shared: Path, run: Callable[..., Any]) -> None:
    url = f"sqlite:///{shared}/registry.sqlite"
    ensure_migrations(url, revision=known()[0])
    for path in shared.iterdir():
        path.chmod(0o444)
    shared.chmod(0o555)
    ((kind, _),) = run(UNPRIVILEGED, "head", url)
    assert kind == "UnavailableError"


def test_a_file_that_cannot_be_read_is_unavailable(shared: Path, run: Callable[..., Any]) -> None:
    url = f"sqlite:///{shared}/registry.sqlite"
    ensure_migrations(url)
    for path in shared.iterdir():
        path.chmod(0o000)
    ((kind, _),) = run(UNPRIVILEGED, "head", url)
    assert kind == "UnavailableError"


def test_a_connection_that_is_cut_in_the_middle_leaves_nothing(
    postgres_database: str, execute: Callable[..., Any], revise: Callable[..., Path], alembic: Callable[..., None]
) -> None:
    target = Target.of(postgres_database)
    folder = revise("9006_cut", upgrade='op.execute("SELECT pg_terminate_backend(pg_backend_pid())")')
    with pytest.raises(UnavailableError):
        alembic(folder, target, "upgrade", "head")
    assert target.revision() is None
    assert ensure_migrations(postgres_database) == len(known())
