"""The doctor, on both databases: a healthy store, work that is stuck, what cannot be found, what contradicts itself."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.operations.doctor import Diagnosis, patient, schema
from agentos_store.operations.doctor.data import SOURCES
from agentos_store.operations.doctor.kinds import KINDS, SECTIONS, finding
from agentos_store.store import searched
from agentos_store.types import to_text

Raw = Callable[..., list[tuple[Any, ...]]]

EXPECTED = {
    "sqlite-version",
    "disk-low",
    "role-superuser",
    "role-owner",
    "schema-open",
    "drift-unchecked",
    "server-old",
    "pool-large",
    "pooler",
    "tls-off",
    "tls-unverified",
    "slow-operations",
    "write-waits",
}
"""What may be so wherever the tests run: the machine and its load, its SQLite, its server and who owns that."""

AGO = dt.timedelta(days=3)


def facts(diagnosis: Diagnosis, *planted: str) -> dict[str, str]:
    """Return what was found by its code, but for what may be so on any machine and was not planted."""
    return {each.code: each.found for each in diagnosis.findings if each.code not in EXPECTED - {*planted}}


@pytest.fixture
def no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the comparison with the models to tests of its own: it takes as long as all the rest."""
    monkeypatch.setattr(schema, "CHECKS", ())


@pytest.fixture
def past(backend: str) -> object:
    """A time that is long past, as a raw statement takes it."""
    time = dt.datetime.now(dt.UTC) - AGO
    return to_text(time) if backend == "sqlite" else time


def test_a_healthy_store_has_no_warning_and_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    task = store.tasks.create(title="Refactor the parser", enqueue=True)
    store.audits.record(task.task_id, event_type="looked.at")
    store.inbox.add(task.task_id, event_type="task.created")
    store.users.create(name="ann")
    session = store.sessions.create()
    store.messages.append(session.id, role="user", content="今天天气怎么样？")
    store.memory.remember({"likes": "tea"}, scope="global", type="preference")
    store.events.log("started")
    for deep in (False, True):
        found = store.doctor(deep=deep)
        assert facts(found) == {}
        assert found.codes("error", "warning") <= EXPECTED
        assert found.checks >= 20
        # Once is enough.
        monkeypatch.setattr(schema, "CHECKS", ())


@pytest.mark.usefixtures("no_drift")
def test_work_that_is_stuck_is_found(store: Store, raw: Raw, past: object) -> None:
    parked, waits, held = (store.tasks.create(title=each, enqueue=True) for each in "abc")
    for task in (parked, waits, held):
        store.inbox.add(task.task_id, event_type="x")
    raw("UPDATE supervisor_inbox SET status = 'parked' WHERE task_id = ?", parked.task_id)
    raw("UPDATE supervisor_inbox SET event_ts = ?, created_at = ? WHERE task_id = ?", past, past, waits.task_id)
    raw("UPDATE supervisor_inbox SET status = 'processing', lease_until = ? WHERE task_id = ?", past, held.task_id)
    raw("UPDATE tasks SET created_at = ? WHERE task_id = ?", past, waits.task_id)
    raw("UPDATE tasks SET status = 'running', lease_until = ? WHERE task_id = ?", past, held.task_id)
    session = store.sessions.create()
    for number, state in enumerate(("executing", "approval_required")):
        call = store.tool_calls.record(
            session_id=session.id, tool_call_id=f"call-{number}", tool_name="shell", input={}, state=state
        )
        raw("UPDATE tool_call_records SET created_at = ? WHERE id = ?", past, call.id)
    user = store.users.create(name="ann", quota_total=10)
    raw("UPDATE users SET quota_used = 11 WHERE id = ?", user.id)
    raw(
        "INSERT INTO maintenance_runs (id, kind, started_at, counts, progress) VALUES ('r', 'import', ?, '{}', '{}')",
        past,
    )
    found = facts(store.doctor())
    assert found.keys() == {
        "inbox-stuck",
        "inbox-waiting",
        "inbox-parked",
        "tasks-stuck",
        "tasks-waiting",
        "tool-calls-open",
        "approvals-waiting",
        "quotas-exceeded",
        "run-unfinished",
    }
    assert found["tasks-stuck"].startswith("1 running tasks")
    assert "3 days" in found["tasks-waiting"]
    assert found["run-unfinished"] == "1 of import"
    # A run that was repeated to its end is not told.
    columns = "(id, kind, started_at, finished_at, counts, progress)"
    ((later,),) = raw("SELECT created_at FROM tasks WHERE task_id = ?", held.task_id)
    raw(f"INSERT INTO maintenance_runs {columns} VALUES ('s', 'import', ?, ?, '{{}}', '{{}}')", later, later)
    assert found.keys() - facts(store.doctor()).keys() == {"run-unfinished"}


@pytest.mark.usefixtures("no_drift")
def test_what_no_search_finds_is_found(store: Store, raw: Raw) -> None:
    item = store.memory.remember({"likes": "tea"}, scope="global", type="preference")
    store.memory.remember({"likes": "milk"}, scope="global", type="preference")
    raw("DELETE FROM search_documents WHERE key = ?", item.id)
    assert facts(store.doctor()) == {"search-incomplete": "not indexed: 1 of kind memory"}
    raw("UPDATE search_documents SET key = 'gone'")
    assert facts(store.doctor(deep=True)) == {
        "search-incomplete": "missing or changed: 2 of kind memory",
        "search-orphans": "1 of kind memory",
    }
    store.search.rebuild()
    assert facts(store.doctor(deep=True)) == {}


@pytest.mark.usefixtures("no_drift")
def test_what_contradicts_itself_is_found_by_the_deep_look(store: Store, raw: Raw, backend: str) -> None:
    task = store.tasks.create(title="t")
    store.audits.record(task.task_id, event_type="looked.at")
    session = store.sessions.create()
    raw("UPDATE sessions SET message_count = 7 WHERE id = ?", session.id)
    change = "UPDATE task_audits SET event_type = 'looked.away' WHERE event_type = 'looked.at'"
    if backend == "sqlite":
        ((guard,),) = raw("SELECT sql FROM sqlite_master WHERE name = 'tr_task_audits_no_update'")
        raw("DROP TRIGGER tr_task_audits_no_update")
        raw(change)
        raw(guard)
    else:
        raw("ALTER TABLE task_audits DISABLE TRIGGER USER")
        raw(change)
        raw("ALTER TABLE task_audits ENABLE TRIGGER USER")
    assert facts(store.doctor()) == {}
    found = store.doctor(deep=True)
    assert facts(found) == {"consistency": "1 of counters", "audit-chains": "1 of 1 chains are not whole"}
    assert [each.severity for each in found.findings if each.code in facts(found)] == ["error", "warning"]
    assert found.worst == "error"
    assert not found.ok


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.usefixtures("no_drift")
def test_many_messages_that_wait_to_be_indexed_are_worth_a_note(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentos_store.operations.doctor.data.SEARCH_BEHIND", 1)
    session = store.sessions.create()
    for text in "ab":
        store.messages.append(session.id, role="user", content=text)
    found = store.doctor()
    assert facts(found) == {"search-behind": "about 2 messages are not indexed yet"}
    assert "search-behind" in found.codes("note")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_check_that_fails_is_a_finding_and_the_others_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> Any:
        yield from ()
        raise ValueError("a value of a row")

    healthy = store.doctor()
    monkeypatch.setattr(schema, "CHECKS", (fails,))
    found = store.doctor()
    assert facts(found) == {"check-failed": "fails: ValueError"}
    assert found.checks == healthy.checks - 1


def test_a_check_that_takes_too_long_is_given_up(store: Store, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "LIMIT", 0.05)
    monkeypatch.setattr(patient, "STEPS", 1000)
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def counts_on(looked_at: patient.Patient) -> Any:
        looked_at.ask(endless)
        yield finding("drift", "")

    monkeypatch.setattr(schema, "CHECKS", (counts_on,))
    assert facts(store.doctor()) == {"check-unfinished": "counts on took longer than 0.05 s"}


async def _asynchronous(url: str) -> Diagnosis:
    async with AsyncStore.open(url) as store:
        return await store.doctor()


@pytest.mark.usefixtures("no_drift")
def test_both_faces_find_the_same(store: Store, url: str, raw: Raw) -> None:
    store.users.create(name="ann", quota_total=10)
    raw("UPDATE users SET quota_used = 11")
    found = asyncio.run(_asynchronous(url))
    assert facts(found) == {"quotas-exceeded": "1 users"}
    assert found == store.doctor()


def test_the_doctor_changes_nothing(store: Store, raw: Raw, backend: str) -> None:
    store.tasks.create(title="t")

    def state() -> list[Any]:
        if backend == "sqlite":
            return raw("PRAGMA data_version")
        tables = [name for (name,) in raw("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]
        # A row that was written anew has another xmin.
        rows = [raw(f"SELECT max(xmin::text::bigint), count(*) FROM {name}") for name in tables]
        return [*rows, raw("SELECT count(*) FROM pg_namespace")]

    seen = state()
    store.doctor(deep=True)
    assert state() == seen


def test_what_is_searched_is_what_the_store_searches() -> None:
    assert SOURCES == searched.SOURCES


def test_the_page_describes_every_finding_as_the_code_does() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert rows == [
        (code, kind.severity, kind.meaning, kind.remedy) for kinds in SECTIONS.values() for code, kind in kinds.items()
    ]
    assert len(rows) == len(KINDS)
