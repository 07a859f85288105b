"""Databases for the tests: one PostgreSQL server for the whole run, started by the first test that needs it.

With pytest-xdist the controller owns the server and the migrated template on it. Workers ask it for them over a
socket, so that both are made once, at the first need or never, and go when the controller goes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from agentos_store import Store
    from agentos_store.testing import PostgresServer
    from tests.recycling import Shelf

BACKENDS = ("sqlite", "postgresql")

Ask = Callable[[str], str]
"""Answers ``"server"`` with the server's URL, ``"template"`` with the name of a migrated database to copy, which is
empty where databases may not be created, and ``"bouncer"`` with the URL of what stands before it, if anything does."""

ASK = pytest.StashKey[Ask]()

OWNER = pytest.StashKey["Owner"]()

# How long an example takes depends on what else the machine does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


class Owner:
    """Starts the server when it is first asked for, and stops it at the end of the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, str | Exception] = {}
        self._server: PostgresServer | None = None
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._key = secrets.token_bytes(32)
        self._between = contextlib.ExitStack()

    def ask(self, what: str) -> str:
        """Answer a question; a failure is remembered, so that each test reports it and none waits for it again."""
        with self._lock:
            return self._ask(what)

    def _ask(self, what: str) -> str:
        if what not in self._answers:
            try:
                self._answers[what] = self._find(what)
            except Exception as error:  # noqa: BLE001  whoever asks gets it
                self._answers[what] = error
        answer = self._answers[what]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _find(self, what: str) -> str:
        if what == "server":
            return self._start()
        if what == "bouncer":
            return self._stand_between()
        return self._make_template(self._ask("server"))

    def address(self) -> tuple[Any, bytes]:
        """Return where workers may ask, and the key that they have to show."""
        if self._listener is None:
            # Every worker may be waiting for the first answer at once.
            self._listener = Listener(backlog=256, authkey=self._key)
            self._thread = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
            self._thread.start()
        return self._listener.address, self._key

    def close(self) -> None:
        """Stop answering, and stop the server."""
        if self._listener is not None and self._thread is not None:
            with Client(self._listener.address, authkey=self._key) as connection:
                connection.send("stop")
            self._thread.join()
            self._listener.close()
        with self._lock:
            self._between.close()
            if self._server is not None:
                self._drop_template()
                self._server.close()

    def _serve(self, listener: Listener) -> None:
        while True:
            # A worker that dies while it asks costs only its own answer.
            with contextlib.suppress(OSError, EOFError), listener.accept() as connection:
                what = connection.recv()
                if what == "stop":
                    return
                try:
                    connection.send((True, self.ask(what)))
                except Exception as error:  # noqa: BLE001  the worker raises it
                    connection.send((False, f"{type(error).__name__}: {error}"))

    def _start(self) -> str:
        from agentos_store.testing import PostgresServer
        from tests.standing import THROUGH_BOUNCER

        # Through a PgBouncer the limits are those of the role, or of the server.
        self._server = PostgresServer(settings={"lock_timeout": "5s"} if THROUGH_BOUNCER else None)
        return self._server.url

    def _stand_between(self) -> str:
        from tests.events.bouncer import bouncer, find
        from tests.standing import THROUGH_BOUNCER

        if not THROUGH_BOUNCER:
            return ""
        if find() is None:
            raise RuntimeError("AGENTOS_STORE_TEST_THROUGH=pgbouncer, but it is not installed")
        return self._between.enter_context(bouncer(self._ask("server"), every=True))

    def _make_template(self, server: str) -> str:
        from agentos_store.testing import Databases
        from tests.standing import migrate

        databases = Databases(server)
        if not databases.can_create():
            return ""
        url = databases.create()
        try:
            migrate(url)
            databases.seal(url)
        except BaseException:
            databases.drop(url)
            raise
        return url

    def _drop_template(self) -> None:
        from agentos_store.testing import Databases

        server, template = self._answers.get("server"), self._answers.get("template")
        if isinstance(server, str) and isinstance(template, str) and template:
            Databases(server).drop(template)


IN_MEMORY = Path("/dev/shm")
ENOUGH = 4 * 1024**3


def work_in_memory() -> None:
    """Keep the databases of the tests in memory where there is room: a disk's time to sync is most of theirs.

    What a test proves of a killed process does not depend on the disk. With TMPDIR set it is where that says.
    """
    if "TMPDIR" not in os.environ and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ENOUGH:
        os.environ["TMPDIR"] = str(IN_MEMORY)
        tempfile.tempdir = None


def pytest_configure(config: pytest.Config) -> None:
    """Let nothing of the developer's own configuration into the tests, and prepare the way to the server."""
    for name in [name for name in os.environ if name.upper().startswith("DATABASE_")]:
        del os.environ[name]
    if os.environ.get("AGENTOS_STORE_TEST_THROUGH"):
        # The oldest that is met knows of no prepared statements.
        os.environ["DATABASE_PREPARE_STATEMENTS"] = "false"
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        work_in_memory()
        owner = Owner()
        config.stash[OWNER] = owner
        config.stash[ASK] = owner.ask
        config.add_cleanup(owner.close)
        return
    address, key = worker["postgres_address"], bytes.fromhex(worker["postgres_key"])

    def ask(what: str) -> str:
        with Client(address, authkey=key) as connection:
            connection.send(what)
            found, answer = connection.recv()
        if not found:
            raise RuntimeError(answer)
        return str(answer)

    config.stash[ASK] = ask


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without collecting garbage: among millions of objects that stay, looking for it takes as long.

    What is there afterwards stays until the end, and is not looked through while the tests run either.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each worker of pytest-xdist where to ask."""
    address, key = node.config.stash[OWNER].address()
    node.workerinput["postgres_address"] = address
    node.workerinput["postgres_key"] = key.hex()


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> str:
    """A maintenance database of the run's PostgreSQL server."""
    return pytestconfig.stash[ASK]("server")


@pytest.fixture
def postgres_database(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty PostgreSQL database, or an empty schema that DATABASE_SCHEMA names where none may be created."""
    from agentos_store.testing import Databases

    if Databases(postgres_url).can_create():
        with _postgres_database(postgres_url, None) as url:
            yield url
    else:
        _empty_schema(postgres_url, monkeypatch)
        yield postgres_url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/registry.sqlite"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """``"sqlite"`` and ``"postgresql"``; fixtures that depend on it run each test on both."""
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest) -> str:
    """An empty database of the backend."""
    # Asked for by name, so that tests on SQLite start no server.
    return str(request.getfixturevalue("sqlite_url" if backend == "sqlite" else "postgres_database"))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that is only ever copied."""
    from agentos_store import ensure_migrations

    path = tmp_path_factory.mktemp("template") / "registry.sqlite"
    ensure_migrations(f"sqlite:///{path}")
    # What is still in the write-ahead log would not be copied.
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


HERE = Path(__file__).parent

MAY_RECYCLE = {
    # What is tested there looks neither at statistics nor at the numbers of transactions, and leaves the schema alone.
    "agents",
    "conversations",
    "governance",
    "importers",
    "knowledge",
    "leases",
    "memory",
    "projects",
    "store",
    "tasks",
    "types",
    "worker",
}


@pytest.fixture(scope="session")
def shelf(postgres_url: str, pytestconfig: pytest.Config) -> Iterator[Shelf]:
    """The databases that go from test to test."""
    from tests.recycling import Shelf

    made = Shelf(postgres_url, pytestconfig.stash[ASK]("template"))
    yield made
    made.close()


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the backend with the schema in it and no rows."""
    if backend == "sqlite":
        empty: str = request.getfixturevalue("sqlite_url")
        shutil.copy(request.getfixturevalue("sqlite_template"), empty.removeprefix("sqlite:///"))
        yield empty
        return
    from tests.standing import tested

    ask = request.config.stash[ASK]
    server, template = ask("server"), ask("template")
    if template and request.path.relative_to(HERE).parts[0] in MAY_RECYCLE:
        shelf: Shelf = request.getfixturevalue("shelf")
        made = shelf.take()
        try:
            yield tested(made, ask("bouncer"))
        finally:
            shelf.give_back(made)
    elif template:
        with _postgres_database(server, template) as made:
            yield tested(made, ask("bouncer"))
    else:
        from agentos_store import ensure_migrations

        _empty_schema(server, request.getfixturevalue("monkeypatch"))
        ensure_migrations(server)
        yield server


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open store of the backend, without rows."""
    from agentos_store import Store

    with Store.open(url) as opened:
        yield opened


@contextlib.contextmanager
def _postgres_database(server: str, template: str | None) -> Iterator[str]:
    from agentos_store.testing import Databases

    databases = Databases(server)
    made = databases.create(template)
    try:
        yield made
    finally:
        databases.drop(made)


def _empty_schema(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentos_store.testing import reset_schema

    schema = f"agentos_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    reset_schema(server, schema)
    monkeypatch.setenv("DATABASE_SCHEMA", schema)


@pytest.fixture(scope="module")
def migrated(postgres_url: str, pytestconfig: pytest.Config) -> Iterator[tuple[str, str | None]]:
    """A PostgreSQL database with our schema and no rows for the tests of a module, and the schema where it has a name.

    It has one where no database may be created.
    """
    template = pytestconfig.stash[ASK]("template")
    if template:
        with _postgres_database(postgres_url, template) as made:
            yield made, None
        return
    from agentos_store.testing import reset_schema
    from tests.standing import migrate

    # Of this worker alone: the others may run tests of the same module beside it.
    schema = f"agentos_module_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    reset_schema(postgres_url, schema)
    migrate(postgres_url, schema)
    yield postgres_url, schema
    reset_schema(postgres_url, schema)


@pytest.fixture(scope="module")
def both(
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    migrated: tuple[str, str | None],
    pytestconfig: pytest.Config,
) -> Iterator[list[Store]]:
    """A store on SQLite and one on PostgreSQL, used side by side by the tests of a module."""
    from agentos_store import Store
    from tests.standing import tested

    file = shutil.copy(sqlite_template, tmp_path_factory.mktemp("both"))
    url, schema = migrated
    near = tested(url, pytestconfig.stash[ASK]("bouncer"))
    with Store.open(f"sqlite:///{file}") as sqlite, Store.open(near, schema=schema) as postgresql:
        yield [sqlite, postgresql]


@pytest.fixture
def raw(url: str, pytestconfig: pytest.Config) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Run a statement on the bare driver, as another program would; question marks stand for values."""
    from agentos_store.testing.postgres import connect
    from tests.standing import administrative

    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA recursive_triggers=ON")
        mark = "?"
    else:
        connection = connect(administrative(url, pytestconfig.stash[ASK]("server")))
        mark = "%s"

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.replace("?", mark), values)
        return [] if cursor.description is None else cursor.fetchall()

    with contextlib.closing(connection):
        yield run


@pytest.fixture
def own_transactions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no transaction of another database keep events back: other tests run on the same server.

    Whoever looks how far the order can be read looks again as long as it is such a transaction that is in the way.
    """
    from agentos_store.events import order

    look = order.look

    def look_past_strangers(session: Any, origin: str) -> Any:
        found = look(session, origin)
        deadline = time.monotonic() + 20
        while found is not None and found.behind and time.monotonic() < deadline:
            holders = session._connection.cursor.execute(
                "SELECT 1 FROM pg_stat_activity WHERE backend_xid::text = %s AND datname = current_database()",
                [str(found.horizon % 2**32)],
                prepare=False,
            )
            if holders.fetchone() is not None:
                break
            found = look(session, origin)
        return found

    monkeypatch.setattr(order, "look", look_past_strangers)
