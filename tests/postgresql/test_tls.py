"""A server on another machine proves who it is, and passwords of any kind get there and nowhere else."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agentos_store import Settings, Store, StoreError, UnavailableError, ensure_migrations
from agentos_store.engine.postgresql.connect import connector
from agentos_store.engine.postgresql.tls import require_tls
from agentos_store.engine.urls import display, parse_url
from agentos_store.testing import PostgresServer
from tests.postgresql.servers import administration, at, primary, reload_with

NAME = "db.example.test"
"""What the certificate says that the server is; it is found at 127.0.0.1."""

USER = "a@b"
PASSWORD = "p@ss:/w#rd?%"

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-x509")

RULES = """
local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


class Server:
    """A server that asks for passwords, over a socket and over TCP."""

    def __init__(self, server: PostgresServer, port: int) -> None:
        self.server = server
        self.port = port
        assert server.directory is not None
        self.directory = server.directory

    def url(self, host: str = NAME, *, password: str = PASSWORD, **query: str) -> str:
        if host == NAME:
            query = {"hostaddr": "127.0.0.1", **query}
        login = f"{quote(USER, safe='')}:{quote(password, safe='')}"
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return f"postgresql://{login}@{host}:{self.port}/postgres?{asked}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Of the two that may be here, the machine's own knows TLS.
    settings = {"listen_addresses": "127.0.0.1", "port": str(port)}
    with primary(settings, sources=("local", "embedded")) as started:
        assert started.directory is not None
        (started.directory / "data" / "pg_hba.conf").write_text(RULES)
        with administration(started) as admin:
            admin.execute(f"CREATE ROLE \"{USER}\" LOGIN SUPERUSER PASSWORD '{PASSWORD}'".encode())
            admin.execute("SELECT pg_reload_conf()")
        ensure_migrations(started.url)
        yield Server(started, port)


@pytest.fixture(scope="module")
def authority(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Let the server have a certificate, and return the file of the authority that signed it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, which makes the certificates")
    made = tmp_path_factory.mktemp("certificates")

    def make(name: str, subject: str, *more: str) -> None:
        files = ("-keyout", f"{made}/{name}.key", "-out", f"{made}/{name}.crt")
        command = [openssl, "req", *CURVE, *files, "-subj", f"/CN={subject}", *more]
        subprocess.run(command, check=True, capture_output=True, timeout=20)

    make("authority", "Authority")
    make("stranger", "Stranger")
    signed = ("-CA", f"{made}/authority.crt", "-CAkey", f"{made}/authority.key")
    make("server", NAME, *signed, "-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=CA:false")
    owner = server.directory.stat()
    for name in ("server.crt", "server.key"):
        placed = Path(shutil.copy(made / name, server.directory / "data" / name))
        placed.chmod(0o600)
        os.chown(placed, owner.st_uid, owner.st_gid)
    with administration(server.server) as admin:
        admin.execute("SELECT pg_reload_conf()")
    try:
        reload_with(server.server, ssl="on")
    except Exception as error:  # noqa: BLE001  what a server without OpenSSL answers
        pytest.skip(f"the server has no TLS: {error}")
    return str(made / "authority.crt")


def is_encrypted(store: Store) -> bool:
    with store._backend.raw_connection() as cursor:
        return bool(cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()[0])


def test_a_server_on_another_machine_is_verified_unasked(server: Server, authority: str) -> None:
    with Store.open(server.url(sslrootcert=authority)) as store:
        assert is_encrypted(store)
    with Store.open(server.url(), settings=Settings.load(sslrootcert=authority)):
        pass
    stranger = authority.replace("authority", "stranger")
    with pytest.raises(UnavailableError, match=r"certificate verify failed.*DATABASE_SSLROOTCERT"):
        Store.open(server.url(sslrootcert=stranger))
    # Nobody on this machine has signed it.
    with pytest.raises(UnavailableError, match=r"certificate verify failed.*DATABASE_SSLMODE=disable"):
        Store.open(server.url())
    other = server.url("other.example.test", hostaddr="127.0.0.1", sslrootcert=authority)
    with pytest.raises(UnavailableError, match=r"does not match host name.*DATABASE_SSLMODE"):
        Store.open(other)


def test_whoever_says_otherwise_gets_what_was_said(
    server: Server, authority: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del authority
    for mode, encrypted in (("require", True), ("disable", False)):
        with Store.open(server.url(sslmode=mode)) as store:
            assert is_encrypted(store) is encrypted
    settings = Settings.load(url=server.url(), sslmode="disable")
    with Store.open(settings) as store:
        assert not is_encrypted(store)
    monkeypatch.setenv("PGSSLMODE", "disable")
    with Store.open(server.url()) as store:
        assert not is_encrypted(store)


def test_a_server_without_tls_is_refused_with_the_remedy(server: Server) -> None:
    with administration(server.server) as admin:
        before = admin.execute("SHOW ssl").fetchone()
    reload_with(server.server, ssl="off")
    try:
        with pytest.raises(UnavailableError, match=r"does not support SSL.*DATABASE_SSLMODE=disable where") as caught:
            Store.open(server.url())
        assert PASSWORD not in str(caught.value)
        with Store.open(server.url(sslmode="disable")) as store:
            assert store.tasks.count() == 0
    finally:
        if before == ("on",):
            reload_with(server.server, ssl="on")


@pytest.mark.parametrize(
    ("keywords", "mode"),
    [
        ({"host": "db.example.com"}, "verify-full"),
        ({"host": "10.0.0.7"}, "verify-full"),
        ({"host": "localhost,db.example.com"}, "verify-full"),
        ({"host": "db.example.com", "hostaddr": "127.0.0.1"}, "verify-full"),
        ({"hostaddr": "10.0.0.7"}, "verify-full"),
        ({"host": "localhost", "hostaddr": "10.0.0.7"}, "verify-full"),
        ({"host": "::1"}, None),
        ({"host": "127.1.2.3"}, None),
        ({"host": "localhost"}, None),
        ({"host": "/run/postgresql,/tmp"}, None),
        ({}, None),
        ({"host": "db.example.com", "sslmode": "require"}, "require"),
        ({"host": "db.example.com", "service": "mine"}, None),
    ],
)
def test_only_the_way_to_another_machine_needs_a_certificate(keywords: dict[str, Any], mode: str | None) -> None:
    given = dict(keywords)
    assert require_tls(given) is (mode == "verify-full" and "sslmode" not in keywords)
    assert given.get("sslmode") == mode
    assert ("sslrootcert" in given) is (mode == "verify-full")


def test_the_environment_of_libpq_is_heeded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGHOST", "db.example.com")
    keywords: dict[str, Any] = {}
    assert require_tls(keywords)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "all.pem"))
    (tmp_path / "all.pem").touch()
    for given in ({}, {"sslrootcert": "system"}, {"sslmode": "verify-full"}):
        keywords = dict(given)
        require_tls(keywords)
        assert keywords["sslrootcert"] == str(tmp_path / "all.pem")
    monkeypatch.setenv("PGSSLROOTCERT", "/etc/authority.crt")
    keywords = {}
    assert require_tls(keywords)
    assert "sslrootcert" not in keywords


def test_a_user_without_a_home_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    keywords: dict[str, Any] = {"host": "db.example.com"}
    assert require_tls(keywords)
    assert keywords["sslrootcert"]


def test_any_password_and_any_user_get_there(server: Server) -> None:
    where = str(server.directory)
    parts = Settings.load(
        type="postgresql", host=where, port=server.port, name="postgres", user=USER, password=PASSWORD
    )
    login = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"
    socket_, port = quote(where, safe=""), server.port
    without = f"postgresql://{quote(USER, safe='')}@{socket_}:{port}/postgres"
    urls: list[Any] = [
        parts,
        server.url("127.0.0.1", sslmode="disable"),
        f"postgresql://{login}@{socket_}:{port},127.0.0.1:{port}/postgres?sslmode=disable",
        f"postgresql://{login}@127.0.0.1:1,127.0.0.1:{port}/postgres?sslmode=disable",
        Settings.load(url=without, password=PASSWORD),
        parse_url(without).set(password=PASSWORD),
    ]
    for url in urls:
        with Store.open(url) as store, store._backend.raw_connection() as cursor:
            assert cursor.execute("SELECT current_user").fetchone() == (USER,)


TOKEN = "hunter2-planted"


def test_no_password_is_ever_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Planted where a password may stand, it comes out of no log, no error and no repr."""
    shown: list[str] = []
    where = quote(str(server.directory), safe="")
    user = quote(USER, safe="")
    urls = [
        server.url("127.0.0.1", password=TOKEN, sslmode="disable"),
        server.url(password=TOKEN),
        f"postgresql://{user}:{TOKEN}@{where}:{server.port},127.0.0.1:1/postgres",
        f"postgresql://{user}@{where}:{server.port}/postgres?password={TOKEN}",
        f"postgresql://{user}:{TOKEN}@127.0.0.1:1/postgres",
        f"postgresql://{user}:{TOKEN}@127.0.0.1:{server.port}/postgres?no_such_option=1",
        f"postgresql://{user}:{TOKEN}@127.0.0.1:{server.port}/postgres?sslmode=slip",
    ]
    with caplog.at_level(logging.DEBUG):
        for url in urls:
            shown.append(display(url))
            settings = Settings.load(url=url, read_url=url, password=TOKEN)
            shown += [repr(settings), str(settings)]
            for call in (
                lambda url=url: Store.open(url),
                lambda settings=settings: Store.open(settings),
                lambda url=url: ensure_migrations(url),
                lambda url=url: connector(parse_url(url), Settings.load())(),
            ):
                with pytest.raises(StoreError) as caught:
                    call()
                shown += [
                    "".join(traceback.format_exception(caught.value)),
                    repr(caught.value),
                    repr(caught.value.args),
                ]
        # A replica that cannot be reached is told of in the log.
        broken = f"postgresql://{user}:{TOKEN}@127.0.0.1:1/postgres"
        with Store.open(at(server.server), settings=Settings.load(read_url=broken)) as store:
            shown += [repr(store), repr(store._backend), str(store.status())]
            assert store.tasks.count() == 0
    assert any("reads go to the primary" in record.getMessage() for record in caplog.records)
    shown += [record.getMessage() for record in caplog.records]
    assert [text for text in shown if TOKEN in text] == []
