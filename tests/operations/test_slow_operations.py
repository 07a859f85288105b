"""What is logged: slow operations, with where their time went, and never a value of a row."""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from agentos_store import Settings, Store
from agentos_store.engine.meter import LINES, WINDOW, Meter
from agentos_store.engine.session import Call
from agentos_store.errors import StoreError
from agentos_store.operation import Access, _Operation
from agentos_store.store.repositories import REPOSITORIES
from tests.engine.gather import threads, wait_for
from tests.engine.probe import attempts, probe

TOKEN = "sekret-7f3a"


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


def everything(caplog: pytest.LogCaptureFixture) -> str:
    """Return all that any handler could write of what was logged."""
    formatter = logging.Formatter("%(name)s %(message)s")
    return "\n".join(f"{formatter.format(record)} {vars(record)}" for record in caplog.records)


@pytest.fixture
def telling(url: str, caplog: pytest.LogCaptureFixture) -> Iterator[Store]:
    """A store to which everything is slow, while all that anybody logs is caught."""
    caplog.set_level(logging.DEBUG)
    with Store.open(url, settings=Settings.load(slow_operation=1e-9, retries=0)) as store:
        # As many lines as there are.
        store._backend.meter._lines = -10_000
        store._backend.meter._window = float("inf")
        yield store


def test_no_operation_logs_an_argument(telling: Store, caplog: pytest.LogCaptureFixture) -> None:
    called = set()
    for domain in REPOSITORIES:
        repository = getattr(telling, domain)
        for attribute in dir(type(repository)):
            found = inspect.getattr_static(type(repository), attribute)
            if not isinstance(found, _Operation):
                continue
            given: dict[str, Any] = {}
            positional = []
            for name, parameter in list(inspect.signature(found.body).parameters.items())[2:]:
                if parameter.kind is parameter.KEYWORD_ONLY:
                    given[name] = TOKEN
                elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    positional.append(TOKEN)
            with contextlib.suppress(Exception):
                getattr(repository, attribute)(*positional, **given)
            with contextlib.suppress(Exception):
                getattr(repository, attribute)(*positional)
            # Some have a second attribute.
            called.add(f"{repository.name}.{found.__name__}")
    assert len(called) > 150
    told = {record.operation for record in caplog.records if record.name == "agentos_store.slow"}  # type: ignore[attr-defined]
    assert called <= told
    assert TOKEN not in everything(caplog)


def test_no_error_of_the_driver_is_logged_with_its_values(telling: Store, caplog: pytest.LogCaptureFixture) -> None:
    telling.agents.create(TOKEN, metadata={"x": TOKEN})
    telling.tasks.create(title=TOKEN)
    log = logging.getLogger("program")
    for failing in (
        lambda: telling.agents.create(TOKEN),
        lambda: telling.tasks.create(title=TOKEN, project_id="nowhere"),
        # PostgreSQL's text of a failed CHECK holds the whole row.
        lambda: probe(telling).do(attempts(-1)),
    ):
        try:
            failing()
        except StoreError:
            # With the whole traceback, and whatever the error is chained to.
            log.exception("failed")
        else:
            raise AssertionError
    text = everything(caplog)
    assert "probe.do" in text
    assert "DETAIL" not in text
    lines = [line for line in text.splitlines() if TOKEN in line]
    # A key that the program named itself is in the message of the error that it got.
    assert all("AlreadyExistsError" in line or "NotFoundError" in line for line in lines), lines
    assert not any(
        record.name.startswith("agentos_store") and TOKEN in record.getMessage() for record in caplog.records
    )


def test_a_slow_operation_is_told_with_its_waits(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with Store.open(sqlite_url, settings=Settings.load(slow_operation=0.05)) as store:
        store.tasks.create(title="x")
        with store.transaction() as tx, threads([lambda: store.tasks.create(title="y")]):
            tx.tasks.create(title="z")
            wait_for(lambda: store._backend.pool_state().queue_wait > 0.06)
            tx._runner.end(commit=True)  # type: ignore[attr-defined]
        (record,) = [each for each in caplog.records if each.name == "agentos_store.slow"]
        facts: Any = record
        assert (record.levelname, facts.operation, facts.error, facts.retries) == ("WARNING", "tasks.create", None, 0)
        assert facts.duration >= facts.queue_wait > 0.05
        assert facts.pool_wait == 0
        assert re.fullmatch(
            r"tasks.create took 0.\d{3} s \(0.\d{3} s of it for its turn to write\)", record.getMessage()
        )
        assert store.metrics().slow == 1


@pytest.mark.parametrize("given", ["0", "1000"])
def test_what_is_not_slow_is_not_told(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("DATABASE_SLOW_OPERATION", given)
    with Store.open(sqlite_url) as store:
        store.tasks.create(title="x")
        assert store.metrics().slow == 0
    assert caplog.records == []


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    meter = Meter(0.0, clock=lambda: now)
    call = Call()
    for _ in range(LINES + 70):
        meter.record(Access.READ, "t.get", perf_counter(), call)
    assert len(caplog.records) == LINES
    now += WINDOW
    meter.record(Access.READ, "t.get", perf_counter(), call)
    assert len(caplog.records) == LINES + 1
    assert "70 more were slow" in caplog.records[-1].getMessage()
    assert meter.figures().slow == LINES + 71


def test_a_program_that_sets_up_no_logging_sees_none() -> None:
    handlers = logging.getLogger("agentos_store").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
