from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.schema import ColumnCollectionConstraint

from agentos_store import AsyncStore, Store
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError, UnavailableError, UsageError
from agentos_store.models import metadata
from agentos_store.operations.forgetting import ForgetReport, classification, erasing, statements, walk
from agentos_store.operations.forgetting.classification import ACTORS, TABLES, Emptied, Gone, Kept, Named
from agentos_store.operations.forgetting.erasing import Erasing
from agentos_store.operations.forgetting.report import subject_of
from tests.operations.forgotten import OTHER, USER, World, an_agent, left_in_files, left_in_rows, person

Raw = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (erasing, "FIRST_STEP", 2),
        (erasing, "LARGEST_STEP", 3),
        (erasing, "ENTRIES", 2),
        (erasing, "NAMED", 1),
        (erasing, "CLOSED", 1),
        (walk, "PAGE", 1),
        (walk, "LOOKED_AT", 3),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def vacuum_sqlite(url: str) -> Path:
    path = Path(url.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def left(world: World, raw: Raw, url: str, *also: str) -> set[str]:
    """What any row holds, and on SQLite any byte of the file."""
    found = left_in_rows(world, raw, also)
    return found | left_in_files(world, vacuum_sqlite(url), also) if url.startswith("sqlite") else found


def whole(store: Store) -> bool:
    """Whether chains, index and counters are what they should be."""
    index = store.search.check()
    return store.audits.verify().ok and all(
        (of_kind.stale, of_kind.orphaned, of_kind.overdue) == (0, 0, 0) for of_kind in index.values()
    )


# --- everywhere


def test_nothing_of_a_person_is_left_and_what_others_share_stays(
    store: Store, world: World, raw: Raw, url: str
) -> None:
    person(world)
    assert left_in_rows(world, raw) == set(world.words.values())
    expected = store.forget(user=USER, dry_run=True)
    assert left_in_rows(world, raw) == set(world.words.values())
    report = store.forget(user=USER)
    assert left(world, raw, url, USER, "wanda@") == set()
    assert report.counts() == expected.counts()
    assert whole(store)
    task = store.tasks.get("of-project")
    assert (task.status, task.title, task.payload, task.project_id) == ("cancelled", "(forgotten)", None, "project")
    assert [task.task_id for task in store.tasks.descendants("of-project")] == ["other-of-of-project"]
    assert not store.tasks.exists("alone")
    assert store.agents.get("everybodys").session_id is None
    assert not store.agents.exists("own", include_deleted=True)
    assert [message.content for message in store.messages.list("other")] == ["said to Otto"]
    assert store.users.exists(OTHER)
    assert store.tasks.get("theirs-0").created_by == "(forgotten)"
    (noted,) = store.audits.query(task_id="theirs-0", event_type="e").items
    assert noted.payload == {"by": "somebody", "note": "stays"}
    call = store.tool_calls.get("c0", session_id="other")
    assert (call.approval or {})["by"] == "(forgotten)"


def test_nothing_of_an_agent_is_left_and_what_others_asked_for_stays(
    store: Store, world: World, raw: Raw, url: str
) -> None:
    an_agent(world)
    assert left_in_rows(world, raw) == set(world.words.values())
    expected = store.forget(agent="own", dry_run=True)
    report = store.forget(agent="own")
    assert left(world, raw, url, '"own"') == set()
    assert report.counts() == expected.counts()
    assert whole(store)
    assert store.agents.get("fork").lineage == ["(forgotten)", "x"]
    task = store.tasks.get("executed")
    assert (task.title, task.payload, task.result) == ("asked for by Otto", {"stays": 1}, None)
    assert (task.status, task.exit_reason, task.agent_id) == ("failed", "(forgotten)", None)
    assert {"note": "stays"} in [entry.payload for entry in store.audits.query(task_id="executed")]
    assert [message.content for message in store.messages.list("other")] == [None]
    # Its conversation is gone, although it was Otto's too.
    assert not store.sessions.exists("open", include_deleted=True)


# --- the classification


def test_every_column_of_every_table_is_classified() -> None:
    assert set(TABLES) == set(metadata.tables)
    for name, table in metadata.tables.items():
        assert set(TABLES[name].columns) == set(table.columns.keys()), name


def test_the_classification_makes_sense() -> None:
    named = {
        (name, column) for name, each in TABLES.items() for column, fate in each.columns.items() if fate == Named()
    }
    assert named <= {(actor.table, actor.column) for actor in ACTORS}
    for actor in ACTORS:
        assert isinstance(TABLES[actor.table].columns[actor.column], Named | Emptied)
    for name, classified in TABLES.items():
        stays = any(not link.goes for link in classified.links)
        for column, fate in classified.columns.items():
            # Where rows may stay, it is said of each column what stays.
            assert not (stays and isinstance(fate, Gone)), f"{name}.{column}"
            assert not isinstance(fate, Kept) or fate.why


def test_the_page_tells_of_every_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "forget.md").read_text(encoding="utf-8")
    assert [name for name in metadata.tables if f"| `{name}`" not in page and f", `{name}`" not in page] == []


def test_what_is_theirs_is_found_by_an_index() -> None:
    for name, classified in TABLES.items():
        table = metadata.tables[name]
        found = {index.columns.keys()[0] for index in table.indexes if index.columns}
        found |= {
            key.columns.keys()[0]
            for key in table.constraints
            if isinstance(key, ColumnCollectionConstraint) and key.columns
        }
        for link in classified.links:
            assert link.column in found or name == "import_ledger", f"{name}.{link.column}"


@pytest.mark.parametrize("column", ["payload", "metadata"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_column_that_is_left_out_is_found(
    store: Store, world: World, raw: Raw, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    columns = {**TABLES["tasks"].columns, column: Kept("by mistake")}
    broken = classification.Classified(columns, TABLES["tasks"].links)
    monkeypatch.setitem(TABLES, "tasks", broken)
    emptying = statements.Emptying(metadata.tables["tasks"], broken.links[0])
    monkeypatch.setattr(erasing, "EMPTY_TASK", emptying)
    person(world)
    store.forget(user=USER)
    assert left_in_rows(world, raw) == {f"tasks.{column}"}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_full_text_table_keeps_words_unless_it_is_merged(
    store: Store, world: World, raw: Raw, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, value in (("automerge", 0), ("crisismerge", 1000)):
        raw("INSERT INTO search_index (search_index, rank) VALUES (?, ?)", setting, value)
    person(world)
    with monkeypatch.context() as broken:
        broken.setattr(Erasing, "tidy", lambda _: None)
        store.forget(user=USER)
    assert left_in_files(world, vacuum_sqlite(url)) >= {"messages.content"}
    store.users.create(id=USER, name="n")
    store.forget(user=USER)
    assert left_in_files(world, vacuum_sqlite(url)) == set()


# --- whoever is forgotten


def test_somebody_unknown_is_not_found(store: Store) -> None:
    for dry_run in (False, True):
        with pytest.raises(NotFoundError):
            store.forget(user="nobody", dry_run=dry_run)
        with pytest.raises(NotFoundError):
            store.forget(agent="nobody", dry_run=dry_run)
    assert store.status().rows["maintenance_runs"] == 0


def test_one_is_forgotten_at_a_time(store: Store) -> None:
    with pytest.raises(UsageError):
        store.forget()
    with pytest.raises(UsageError):
        store.forget(user="a", agent="b")
    with pytest.raises(InvalidValueError):
        store.forget(user="a\nb")


def test_what_is_left_of_an_agent_that_was_removed_is_forgotten(store: Store, raw: Raw) -> None:
    store.agents.create("a")
    store.events.log(event_type="e", agent_id="a")
    store.agents.purge("a")
    assert store.forget(agent="a").counts() == {"events": {"removed": 1, "emptied": 0, "named": 0}}
    with pytest.raises(NotFoundError):
        store.forget(agent="a")


def test_a_run_names_nobody_and_its_receipt_does(store: Store, raw: Raw) -> None:
    store.users.create(id=USER, name="Wanda")
    report = store.forget(user=USER, by="the officer")
    ((progress, finished),) = raw(
        "SELECT CAST(progress AS TEXT), finished_at FROM maintenance_runs WHERE kind = 'forget'"
    )
    assert finished is not None
    assert report.receipt is not None
    assert report.receipt not in progress
    assert subject_of(report.receipt, "user", USER) in progress
    assert hashlib.sha256(f"{report.receipt}:user:{USER}".encode()).hexdigest() in progress
    assert "the officer" in progress
    store.users.create(id="the officer", name="n")
    store.forget(user="the officer")
    assert "the officer" not in str(raw("SELECT CAST(progress AS TEXT) FROM maintenance_runs"))


def test_an_async_store_forgets_as_well(store: Store, url: str) -> None:
    store.users.create(id=USER, name="Wanda")
    store.sessions.create(user_id=USER, id="s")
    store.messages.append("s", role="user", content="hello")

    async def forget() -> ForgetReport:
        async with AsyncStore.open(url) as other:
            assert (await other.forget(user=USER, dry_run=True)).run_id is None
            return await other.forget(user=USER)

    assert asyncio.run(forget()).of("messages").removed == 1
    assert store.status().rows["messages"] == store.status().rows["users"] == 0


# --- meanwhile


class Killed(BaseException):
    """Nobody catches it, as nobody catches the end of a process."""


@pytest.mark.parametrize("steps", [7, 40])
def test_a_run_that_was_killed_is_seen_and_finished_by_the_next(
    store: Store, world: World, raw: Raw, url: str, steps: int
) -> None:
    person(world)
    expected = store.forget(user=USER, dry_run=True).counts()
    seen = 0

    def kill(_: str, rows: int) -> None:
        nonlocal seen
        seen += 1
        if seen == steps:
            raise Killed

    with pytest.raises(Killed):
        store.forget(user=USER, progress=kill)
    (marked,) = raw("SELECT id FROM maintenance_runs WHERE kind = 'forget' AND finished_at IS NULL")
    assert store.users.get(USER).preferences == {"forgetting": marked[0]}
    report = store.forget(user=USER)
    assert report.run_id == marked[0]
    assert left(world, raw, url, USER, "wanda@") == set()
    assert whole(store)
    assert set(report.counts()) <= set(expected)
    assert raw("SELECT count(*) FROM maintenance_runs WHERE finished_at IS NULL") == [(0,)]


def test_nobody_can_say_anything_more_and_what_is_begun_meanwhile_goes_too(
    store: Store, world: World, raw: Raw
) -> None:
    person(world)
    done: list[str] = []

    def write(table: str, _: int) -> None:
        if table == "messages" and not done:
            done.append(table)
            for session_id in ("open", "deleted"):
                with pytest.raises(NotFoundError):
                    store.messages.append(session_id, role="user", content="too late")
            store.sessions.create(user_id=USER, id="late")
            said = world.word(metadata.tables["messages"], "content")
            store.messages.append("late", role="user", content=said)
            store.tasks.create(title="late", session_id="open")
            store.contexts.save("late", agent_id="own", context_data="late")

    store.forget(user=USER, progress=write)
    assert done
    assert left_in_rows(world, raw, [USER, "late"]) == set()
    assert whole(store)


def test_whoever_begins_anew_for_ever_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "ROUNDS", 3)
    store.users.create(id=USER, name="Wanda")

    def write(table: str, _: int) -> None:
        if table == "sessions":
            store.sessions.create(user_id=USER)

    store.sessions.create(user_id=USER)
    with pytest.raises(ConflictError, match="sessions keep being made"):
        store.forget(user=USER, progress=write)
    assert store.users.exists(USER)
    store.forget(user=USER)
    assert not store.users.exists(USER)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_role_that_may_not_erase_audits_is_refused_before_anything_is_erased(
    store: Store, url: str, raw: Raw
) -> None:
    from sqlalchemy import make_url

    store.users.create(id=USER, name="Wanda")
    role = f"app_{abs(hash(url)) % 10**9}"
    raw(f"CREATE ROLE {role} LOGIN")
    try:
        for grant in (
            "USAGE ON SCHEMA public",
            "ALL ON ALL TABLES IN SCHEMA public",
            "ALL ON ALL SEQUENCES IN SCHEMA public",
        ):
            raw(f"GRANT {grant} TO {role}")
        raw(f"REVOKE UPDATE ON task_audits FROM {role}")
        other = make_url(url).set(username=role).render_as_string(hide_password=False)
        with Store.open(other) as application, pytest.raises(UnavailableError, match="owner"):
            application.forget(user=USER)
        assert store.users.get(USER).name == "Wanda"
    finally:
        raw(f"DROP OWNED BY {role}")
        raw(f"DROP ROLE {role}")
