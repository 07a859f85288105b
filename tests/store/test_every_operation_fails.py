"""Every operation, with a fault in its way: nothing is half done, nothing twice, and both databases end up alike."""

from __future__ import annotations

import pprint
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import select

from agentos_store import Settings, Store, TransientError, UnavailableError
from agentos_store.engine.session import Call as EngineCall
from agentos_store.engine.session import Session
from agentos_store.engine.sqlite.connect import StoreConnection
from agentos_store.engine.statement import Statement
from agentos_store.models import metadata
from agentos_store.operation import Access
from agentos_store.types import UTCDateTime
from tests.catalogue import CALLS
from tests.store.plain import OF_THE_PLACE, OWN

_TABLES = [table for table in metadata.sorted_tables if table.name not in {"search_documents", "event_orders"}]


def contents(store: Store) -> dict[str, list[str]]:
    """Return every row of every table as text, without what differs from run to run."""

    def body(session: Session) -> dict[str, list[str]]:
        found = {}
        for table in _TABLES:
            columns = [c for c in table.c if not isinstance(c.type, UTCDateTime) and c.name not in OF_THE_PLACE]
            rows: list[Any] = session.all(Statement(select(*columns), lasting=False))
            found[table.name] = sorted(OWN.sub("…", pprint.pformat(row, sort_dicts=True, width=10**6)) for row in rows)
        return found

    result: dict[str, list[str]] = store._backend.run(Access.SNAPSHOT, "contents", body, repeatable=True)
    return result


def differences(found: dict[str, list[str]], expected: dict[str, list[str]]) -> list[str]:
    """Return the rows that only one of the two has."""
    return [
        f"{table} {sign} {row}"
        for table in expected
        for sign, rows, others in (("+", found, expected), ("-", expected, found))
        for row in (Counter(rows[table]) - Counter(others[table])).elements()
    ]


Driver = Callable[..., Any]


class Fault:
    """Strikes once in each operation, when that is under way."""

    def __init__(self) -> None:
        self.operation = ""
        """The one that shall be struck."""
        self.armed = False
        self.struck: set[str] = set()
        self.ended = 0
        """How often the server ended a transaction that was delayed."""

    def strike(self) -> None:
        """Note that it struck."""
        self.armed = False
        self.struck.add(self.operation)

    def busy(self, execute: Driver) -> Driver:
        """Make another program hold the file when the operation begins."""

        def call(raw: Any, text: str, *values: Any) -> Any:
            if self.armed and not text.startswith("PRAGMA"):
                self.strike()
                raise _sqlite_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
            return execute(raw, text, *values)

        return call

    def failing_commit(self, execute: Driver) -> Driver:
        """Let the disk fail when the operation is committed."""

        def call(raw: Any, text: str, *values: Any) -> Any:
            if self.armed and text == "COMMIT":
                self.strike()
                raise _sqlite_error(sqlite3.SQLITE_IOERR, "SQLITE_IOERR")
            return execute(raw, text, *values)

        return call

    def cut_before(self, execute: Driver) -> Driver:
        """Cut the connection before the operation sends anything."""

        def call(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
            if self.armed:
                self._cut(cursor)
            return execute(cursor, query, params, **options)

        return call

    def lost_commit(self, execute: Driver) -> Driver:
        """Cut the connection before a COMMIT arrives."""

        def call(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
            if self.armed and query == b"COMMIT":
                self._cut(cursor)
            return execute(cursor, query, params, **options)

        return call

    def cut_after(self, execute: Driver) -> Driver:
        """Cut the connection when the server has committed and before anybody hears of it."""

        def call(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
            result = execute(cursor, query, params, **options)
            idle = cursor.connection.info.transaction_status is TransactionStatus.IDLE
            if self.armed and idle and (query == b"COMMIT" or _writes(query)):
                self._cut(cursor)
            return result

        return call

    def delay(self, execute: Driver) -> Driver:
        """Pause in the midst of the operation's transaction for longer than the server bears."""

        def call(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
            if not self.armed or cursor.connection.info.transaction_status is not TransactionStatus.INTRANS:
                return execute(cursor, query, params, **options)
            self.strike()
            time.sleep(2 * PATIENCE)
            try:
                return execute(cursor, query, params, **options)
            except psycopg.Error:
                self.ended += cursor.connection.broken
                raise

        return call

    def _cut(self, cursor: Any) -> None:
        self.strike()
        cursor.connection.close()
        raise psycopg.OperationalError("the connection is lost")


def _writes(query: Any) -> bool:
    text = query.decode() if isinstance(query, bytes) else str(query)
    return re.search(r"\b(INSERT|UPDATE|DELETE)\b", text) is not None and not text.startswith("SELECT pg_notify")


def _sqlite_error(code: int, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


STRUCK = {"busy": 200, "failing_commit": 100, "cut_before": 240, "lost_commit": 40, "cut_after": 100, "delay": 40}
"""How many operations each kind reaches at least: all, those that write, those with a transaction around them."""

KINDS = {"sqlite": ["busy", "failing_commit"], "postgresql": ["cut_before", "lost_commit", "cut_after", "delay"]}

PATIENCE = 0.03
"""Seconds for which the server bears a transaction in which nothing happens, where one is delayed."""


@contextmanager
def faulty(store: Store, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    """Put a fault of this kind between the store and its driver."""
    fault, run = Fault(), store._backend.run

    def run_with_fault(access: Access, what: str, body: Any, **options: Any) -> Any:
        # What the catalogue looks up beside the call is not what is struck.
        if what == fault.operation and what not in fault.struck:
            fault.armed = True
        try:
            return run(access, what, body, **options)
        finally:
            fault.armed = False

    with monkeypatch.context() as patch:
        patch.setattr(store._backend, "run", run_with_fault)
        driver: Any = StoreConnection if kind in KINDS["sqlite"] else psycopg.Cursor
        patch.setattr(driver, "execute", getattr(fault, kind)(driver.execute))
        yield fault


def call_again_if_told(call: Callable[[Store], Any], store: Store, fault: Fault, kind: str) -> None:
    """Make a call as its caller would: again when it is known, or found, that nothing was stored."""
    try:
        call(store)
    except TransientError as error:
        if fault.operation not in fault.struck or not error.outcome_unknown:
            raise
    except UnavailableError as error:
        if kind != "failing_commit" or error.code != "SQLITE_IOERR":
            raise
    else:
        return
    if kind != "cut_after":
        call(store)


@pytest.fixture(scope="module")
def untroubled(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> dict[str, list[str]]:
    """What the catalogue leaves in an SQLite file when nothing goes wrong."""
    path = tmp_path_factory.mktemp("untroubled") / "registry.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    with Store.open(f"sqlite:///{path}") as store:
        for _, call in CALLS:
            call(store)
        return contents(store)


@pytest.mark.parametrize(("backend", "kind"), [(backend, kind) for backend, kinds in KINDS.items() for kind in kinds])
def test_a_fault_leaves_nothing_half_done_and_nothing_twice(
    url: str, kind: str, untroubled: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = {"idle_in_transaction_timeout": PATIENCE, "retries": 10} if kind == "delay" else {}
    with (
        Store.open(url, settings=Settings.load(retry_base=0.0, **patience)) as store,
        faulty(store, kind, monkeypatch) as fault,
    ):
        for name, call in CALLS:
            fault.operation = name
            call_again_if_told(call, store, fault, kind)
    # By a store of ordinary patience.
    with Store.open(url) as store:
        found = contents(store)
        assert store.audits.verify().ok
        assert store.check_consistency().ok
    assert len(fault.struck) >= STRUCK[kind]
    # Where the server is late on a busy machine, the operation just goes on.
    assert fault.ended >= (STRUCK[kind] // 2 if kind == "delay" else 0)
    assert differences(found, untroubled) == []


def test_both_databases_end_up_alike(store: Store, untroubled: dict[str, list[str]]) -> None:
    for _, call in CALLS:
        call(store)
    assert differences(contents(store), untroubled) == []


@pytest.mark.parametrize("backend", ["postgresql"])
def test_keys_that_are_drawn_anew_at_each_try_are_found_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.sessions.create(id="s")
    with faulty(store, "cut_after", monkeypatch) as fault:
        fault.operation = "messages.append"
        with monkeypatch.context() as patch:
            patch.setattr(EngineCall, "draw", lambda _, position, make: make())
            store.messages.append("s", role="user", content="once")
    assert store.messages.count(session_id="s") == 2
