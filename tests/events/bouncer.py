"""A PgBouncer in transaction mode before the tests' PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from agentos_store.engine.urls import parse_url

USERS = ("agentos_test_owner", "agentos_test_app", "agentos_test_reader")

SERVERS = 20
"""Connections to the server that all clients share."""


def find() -> str | None:
    """Return where the program is; Debian's lies where only administrators look."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


@contextlib.contextmanager
def bouncer(url: str, *, every: bool = False) -> Iterator[str]:
    """Start one for the database of this URL, or for every one, and yield the URL through it; skip where there is none.

    Whoever comes to the one database is its user; to every database each comes as who it is.
    """
    program = find()
    if program is None:
        pytest.skip("pgbouncer is not installed; Debian has it as a package of this name")
    target = parse_url(url)
    host = target.host or target.query.get("host")
    if not isinstance(host, str) or target.password:
        pytest.skip("the way to this server is not one that PgBouncer is given here")
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="pgb-", dir="/tmp") as made:
        directory = Path(made)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server_port = target.port or target.query.get("port") or 5432
        named = "*" if every else target.database
        more = "" if every else f"dbname={target.database} user={target.username}"
        login = "trust" if every else "any"
        known = (target.username, *USERS) if every else ()
        (directory / "users").write_text("".join(f'"{name}" ""\n' for name in known))
        (directory / "pgbouncer.ini").write_text(
            f"""[databases]
{named} = host={host} port={server_port} {more}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = {login}
auth_file = {directory}/users
pool_mode = transaction
max_client_conn = 500
default_pool_size = {SERVERS}
logfile = {directory}/log
"""
        )
        user = None
        if os.getuid() == 0:
            # It does not run as root; the server's own user may enter the directory of its socket.
            user = Path(host).stat().st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid
            directory.chmod(0o777)
        running = subprocess.Popen(
            [program, str(directory / "pgbouncer.ini")],
            user=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            through = f"postgresql://{target.username}@127.0.0.1:{port}/{target.database}"
            _wait(through, running, directory)
            yield through
        finally:
            running.terminate()
            running.wait(20)


def _wait(url: str, running: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url, prepare_threshold=None, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            if running.poll() is not None or time.monotonic() > deadline:
                log = directory / "log"
                raise AssertionError(log.read_text() if log.exists() else str(error)) from None
            time.sleep(0.02)
        else:
            return
