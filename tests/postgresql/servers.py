"""Servers that stand beside each other: a primary, and standbys that follow it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from agentos_store import UnavailableError
from agentos_store.testing import PostgresServer
from agentos_store.testing.postgres import URL_VARIABLE, connect
from tests.engine.gather import wait_for

DATABASE = "postgres"


class Standby(PostgresServer):
    """A server that was copied from another one and follows it."""

    def __init__(self, primary: PostgresServer, settings: Mapping[str, str] | None = None) -> None:
        self._primary = primary
        super().__init__(sources=(primary.source,), settings=settings)

    def _making(self, binaries: Path, data: Path) -> list[str]:
        where = str(self._primary.directory)
        copy = [str(binaries / "pg_basebackup"), "--host", where, "--username=postgres", "--pgdata", str(data)]
        return [*copy, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]


def primary(
    settings: Mapping[str, str] | None = None, sources: tuple[str, ...] = ("embedded", "local")
) -> PostgresServer:
    """Start a server that can be followed."""
    if os.environ.get(URL_VARIABLE):
        pytest.skip("a server that belongs to somebody else is neither copied nor stopped")
    server = PostgresServer(sources=sources, settings=settings)
    assert server.directory is not None
    return server


def standby(of: PostgresServer, settings: Mapping[str, str] | None = None) -> Standby:
    """Start a server that follows another one."""
    try:
        return Standby(of, settings)
    except UnavailableError as error:
        if "pg_basebackup" in str(error):
            pytest.skip(f"there is no standby to be had: {error}")
        raise


def both_hosts(*servers: PostgresServer, user: str = "postgres", database: str = DATABASE) -> str:
    """Return the URL that names all the servers."""
    hosts = ",".join(str(server.directory).replace("/", "%2F") for server in servers)
    return f"postgresql://{user}@{hosts}/{database}"


def at(server: PostgresServer, **parts: Any) -> str:
    """Return the server's URL with other parts."""
    return make_url(server.url).set(**parts).render_as_string(hide_password=False)


@contextlib.contextmanager
def administration(server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """Yield a superuser's connection."""
    with contextlib.closing(connect(server.url)) as connection:
        yield connection


def kill(server: PostgresServer) -> None:
    """End the server at once, as a crash of its machine would."""
    assert server.process is not None
    assert server.directory is not None
    # Its children notice that their parent is gone, and go too.
    server.process.kill()
    server.process.wait()


def promote(server: PostgresServer) -> None:
    """Make a standby the primary, and return when it takes writes."""
    with administration(server) as admin:
        admin.execute("SELECT pg_promote()")
        wait_for(lambda: admin.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,))


def reload_with(server: PostgresServer, **settings: str) -> None:
    """Change settings of a running server, and return when they hold."""
    with administration(server) as admin:
        for name, value in settings.items():
            admin.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        admin.execute("SELECT pg_reload_conf()")
        for name, value in settings.items():

            def holds(name: str = name, value: str = value) -> bool:
                with administration(server) as fresh:
                    return fresh.execute(f"SHOW {name}".encode()).fetchone() == (value,)

            wait_for(holds)
