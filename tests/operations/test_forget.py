from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from tests.engine.gather import wait_for
from tests.operations.forgotten import OTHER, USER, World, an_agent, left_in_files, left_in_rows, person
from tests.standing import own_session, owners_work

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


@pytest.mark.parametrize("work", ["message", "task", "event", "context"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_agent_that_did_any_work_in_a_conversation_of_others_is_not_the_persons_own(store: Store, work: str) -> None:
    for user, session_id in ((USER, "hers"), (OTHER, "his")):
        store.users.create(id=user, name="n")
        store.sessions.create(user_id=user, id=session_id)
    store.agents.create("a", session_id="hers")
    if work == "message":
        store.messages.append("his", role="assistant", content="hello", agent_id="a")
    elif work == "task":
        store.tasks.create(title="his", task_id="his", session_id="his", agent_id="a")
    elif work == "event":
        store.events.log(event_type="e", session_id="his", agent_id="a")
    else:
        store.contexts.save("his", agent_id="a", session_id="his", context_data="his")
    before = store.status().rows
    store.forget(user=USER)
    assert store.agents.get("a").session_id is None
    gone = {name: before[name] - left for name, left in store.status().rows.items() if before[name] != left}
    assert gone == {"users": 1, "sessions": 1, "maintenance_runs": -1}


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


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_columns_that_are_left_out_are_found(
    store: Store, world: World, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {**TABLES["tasks"].columns, **dict.fromkeys(("payload", "metadata"), Kept("by mistake"))}
    broken = classification.Classified(columns, TABLES["tasks"].links)
    monkeypatch.setitem(TABLES, "tasks", broken)
    emptying = statements.Emptying(metadata.tables["tasks"], broken.links[0])
    monkeypatch.setattr(erasing, "EMPTY_TASK", emptying)
    person(world)
    store.forget(user=USER)
    assert left_in_rows(world, raw) == {"tasks.payload", "tasks.metadata"}


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


def test_a_run_that_was_killed_is_seen_and_finished_by_the_next(store: Store, world: World, raw: Raw, url: str) -> None:
    person(world)
    expected = store.forget(user=USER, dry_run=True).counts()
    left_to_live = 0

    def kill(_: str, __: int) -> None:
        nonlocal left_to_live
        left_to_live -= 1
        if left_to_live == 0:
            raise Killed

    for steps in (7, 9, 16):
        left_to_live = steps
        with pytest.raises(Killed):
            store.forget(user=USER, progress=kill)
        (marked,) = raw("SELECT id FROM maintenance_runs WHERE kind = 'forget' AND finished_at IS NULL")
        assert store.users.get(USER).preferences == {"forgetting": marked[0]}
    report = store.forget(user=USER)
    assert report.run_id == marked[0]
    assert left(world, raw, url, USER, "wanda@") == set()
    assert whole(store)
    # What was done before the end counts too.
    assert report.counts() == expected
    assert raw("SELECT count(*) FROM maintenance_runs WHERE finished_at IS NULL") == [(0,)]


def test_of_two_calls_the_later_one_takes_the_run_up_alone(store: Store, raw: Raw) -> None:
    store.users.create(id=USER, name="Wanda")
    store.sessions.create(user_id=USER, id="s")
    store.messages.append_many("s", [{"role": "user", "content": "hello"}] * 5)
    expected = store.forget(user=USER, dry_run=True).counts()
    later: list[ForgetReport] = []

    def call_again(table: str, _: int) -> None:
        if table == "messages" and not later:
            later.append(store.forget(user=USER))

    with pytest.raises(ConflictError, match="taken the run up"):
        store.forget(user=USER, progress=call_again)
    (report,) = later
    assert report.counts() == expected
    assert report.receipt is not None
    ((counts, progress, error),) = raw(
        "SELECT CAST(counts AS TEXT), CAST(progress AS TEXT), error FROM maintenance_runs WHERE kind = 'forget'"
    )
    assert (json.loads(counts), error) == (expected, None)
    assert subject_of(report.receipt, "user", USER) in progress


def test_however_many_begin_at_once_there_is_one_run(store: Store, raw: Raw) -> None:
    store.users.create(id=USER, name="Wanda")
    for number in range(4):
        store.sessions.create(user_id=USER, id=f"s{number}")
    start = threading.Barrier(4)

    def forget(_: int) -> ForgetReport | None:
        start.wait()
        try:
            return store.forget(user=USER)
        except (ConflictError, NotFoundError):
            return None

    with ThreadPoolExecutor(4) as pool:
        (report,) = (each for each in pool.map(forget, range(4)) if each is not None and each.rows)
    assert (report.of("sessions").removed, report.of("users").removed) == (4, 1)
    (run,) = raw("SELECT id FROM maintenance_runs WHERE CAST(counts AS TEXT) <> '{}'")
    assert run[0] == report.run_id


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


def test_a_task_that_others_come_to_need_meanwhile_stays(store: Store) -> None:
    store.users.create(id=USER, name="Wanda")
    store.sessions.create(user_id=USER, id="s")
    store.tasks.create(title="hers", task_id="hers", session_id="s")
    store.events.log(event_type="e", task_id="hers")
    store.tasks.create(title="theirs", task_id="theirs")

    def need(table: str, _: int) -> None:
        if table == "events":
            store.tasks.add_dependency("theirs", "hers")

    report = store.forget(user=USER, progress=need)
    assert (report.of("tasks").emptied, report.of("tasks").removed) == (1, 0)
    assert (store.tasks.get("hers").title, store.tasks.get("hers").status) == ("(forgotten)", "cancelled")
    assert [task.task_id for task in store.tasks.descendants("hers")] == ["theirs"]
    assert whole(store)


def test_audits_whose_numbers_lie_far_apart_are_looked_through(store: Store, raw: Raw, url: str) -> None:
    store.users.create(id=USER, name="Wanda")
    store.tasks.create(title="theirs", task_id="theirs")
    if url.startswith("sqlite"):
        raw("UPDATE sqlite_sequence SET seq = 1000000000000000 WHERE name = 'task_audits'")
        raw("INSERT INTO sqlite_sequence SELECT 'task_audits', 1000000000000000")
    else:
        raw("ALTER SEQUENCE task_audits_audit_id_seq RESTART WITH 1000000000000000")
    store.audits.record("theirs", event_type="e", payload={"by": USER})
    assert store.forget(user=USER).of("task_audits").emptied == 1


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


@owners_work
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_no_file_of_the_server_keeps_a_word_once_its_statistics_are_made_anew(
    store: Store, world: World, raw: Raw
) -> None:
    # One look for all words: there are many, and the server has many files.
    said = re.compile(rb"k[0-9a-f]{20}|" + USER.encode())

    def files() -> set[str]:
        raw("CHECKPOINT")
        relations = "SELECT relname, pg_relation_filepath(oid) AS path FROM pg_class"
        read = raw(f"SELECT relname, pg_read_binary_file(path) FROM ({relations}) f WHERE path IS NOT NULL")
        known = {*world.words, USER}
        return {name for name, content in read if any(word.decode() in known for word in said.findall(content))}

    def vacuum() -> set[str]:
        assert store.vacuum(full=True).skipped == {}
        return files()

    def cleaned() -> set[str]:
        for statement in page.split("```sql")[1].split("```")[0].strip().removesuffix(";").split(";"):
            raw(statement)
        return files()

    page = (Path(__file__).parents[2] / "docs" / "forget.md").read_text(encoding="utf-8")
    person(world)
    raw("ANALYZE")
    assert "messages" in files()
    store.forget(user=USER)
    # Again while a transaction of autovacuum's may still see what was forgotten, or writes what it has read of it.
    wait_for(lambda: vacuum() == {"pg_statistic"})
    wait_for(lambda: cleaned() == set())


@own_session
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
