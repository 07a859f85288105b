"""Agents of a KODE directory arrive whole, once, and with what their conversations were when snapshots were taken."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import bindparam, delete, select

from agentos_store import Settings, Store
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import UnavailableError
from agentos_store.importers.kode import conversation
from agentos_store.importers.kode.directory import open_store
from agentos_store.importers.kode.load import import_store
from agentos_store.models import Agent, AgentDocument, Base, Snapshot
from agentos_store.operation import Blocking, F, Repository, reads_together, writes
from agentos_store.testing.kode_stores import (
    API_KEY,
    DAMAGES,
    FORK,
    KILLED,
    REVIEWER,
    RUNNER,
    START,
    call,
    damage,
    iso,
    make_kode_store,
    meta,
    said,
    write,
)

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "kode-jsonstore"
TABLES: tuple[type[Base], ...] = (Agent, Conversation, Message, ToolCallRecord, AgentDocument, Snapshot)

_ROWS = {model: Statement[Any](select(model.table()), returns=model) for model in TABLES}
_DELETE: Statement[Any] = Statement(
    Agent.table()
    .update()
    .where(Agent.table().c.agent_id == bindparam("agent_id", type_=Agent.table().c.agent_id.type))
    .values(deleted_at=bindparam("now", type_=Agent.table().c.deleted_at.type))
)


_REMOVE: list[Statement[Any]] = [
    Statement(delete(table).where(column == bindparam("key", type_=column.type)))
    for table, column in (
        (Agent.table(), Agent.table().c.agent_id),
        (Conversation.table(), Conversation.table().c.id),
    )
]


class Looking(Repository[F]):
    """Looks at all rows, and does what tests need done."""

    name = "looking"

    @reads_together
    def everything(self, session: Session) -> dict[str, list[dict[str, Any]]]:
        return {
            model.__tablename__: sorted((row.to_dict() for row in session.all(statement)), key=repr)
            for model, statement in _ROWS.items()
        }

    @writes
    def delete(self, session: Session, agent_id: str) -> None:
        session.execute(_DELETE, {"agent_id": agent_id, "now": session.now()})

    @writes
    def remove(self, session: Session, agent_id: str) -> None:
        for statement in _REMOVE:
            session.execute(statement, {"key": agent_id})

    @writes
    def make_agent(self, session: Session, agent_id: str) -> None:
        now = session.now()
        session.insert(
            Agent,
            {
                "agent_id": agent_id,
                "state": "idle",
                "lineage": [],
                "last_sfp_index": -1,
                "stats": {},
                "metadata": {},
                "version": 1,
                "created_at": now,
                "updated_at": now,
            },
        )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with everything in it."""
    make_kode_store(tmp_path / "kode")
    return tmp_path / "kode"


@pytest.fixture
def looking(store: Store) -> Looking[Blocking]:
    return store.bind(Looking[Blocking])


def rows(looking: Looking[Blocking], table: str, **having: Any) -> list[dict[str, Any]]:
    return [row for row in looking.everything()[table] if all(row[name] == value for name, value in having.items())]


def snapshots_in(base: Path) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for agent in open_store(base).agents():
        # Where the conversation cannot be read, nobody knows where in it a snapshot was.
        for snapshot in agent.snapshots if agent.messages is not None else []:
            messages = [{"role": each.role, "content": each.content} for each in snapshot.messages]
            yield agent.agent_id, snapshot.snapshot_id, messages


def as_it_was(store: Store, agent_id: str, snapshot_id: str) -> list[dict[str, Any]]:
    loaded = store.bind(SnapshotRepository[Blocking]).load(agent_id, snapshot_id)
    return [{"role": each.role, "content": each.content} for each in loaded.messages]


def check_all_is_there(store: Store, looking: Looking[Blocking], base: Path) -> None:
    """Hold what the store has against what the directory holds."""
    for agent in open_store(base).agents():
        wanted = [{"role": each.role, "content": each.content} for each in agent.messages or []]
        assert store.messages.history(agent.agent_id) == wanted
        (held,) = rows(looking, "sessions", id=agent.agent_id)
        assert (held["message_count"], held["next_seq"], held["total_tokens"]) == (len(wanted), len(wanted), 0)
        assert len(rows(looking, "tool_call_records", agent_id=agent.agent_id)) == len(agent.calls or [])
        assert len(rows(looking, "agent_documents", agent_id=agent.agent_id)) == len(agent.documents)
    for agent_id, snapshot_id, messages in snapshots_in(base):
        assert as_it_was(store, agent_id, snapshot_id) == messages


def test_everything_arrives_and_a_second_run_changes_nothing(
    store: Store, looking: Looking[Blocking], base: Path
) -> None:
    first = import_store(store, base)
    check_all_is_there(store, looking, base)
    there = looking.everything()
    second = import_store(store, base)
    assert looking.everything() == there
    assert second.imported == 0
    assert not first.set_aside
    for kind, counts in first.counts.items():
        if kind != "earlier_messages":
            again = second.counts[kind]
            assert (counts.read, counts.repeated) == (counts.imported + counts.merged, 0)
            assert (again.read, again.repeated, again.repaired) == (counts.read, counts.imported, counts.repaired)
    assert first.counts["earlier_messages"].imported == 4
    assert first.agents[REVIEWER]["tool_calls"].imported == 3
    assert sum(counts["messages"].imported for counts in first.agents.values()) == first.counts["messages"].imported
    assert first.no_place == {"files left by a crash": 1, "pool": 1, "empty folders": 1}
    assert first.not_yet == {}
    json.dumps(first.to_dict())


def test_agents_have_their_own_words(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    agents = {row["agent_id"]: row for row in rows(looking, "agents")}
    fork, reviewer = agents[FORK], agents[REVIEWER]
    assert (fork["parent_id"], fork["lineage"], fork["breakpoint"]) == (REVIEWER, [REVIEWER], "READY")
    assert (reviewer["config_version"], reviewer["last_sfp_index"], reviewer["template_id"]) == (
        "v2.7.0",
        5,
        "code-reviewer",
    )
    assert reviewer["last_bookmark"] == {"seq": 7, "timestamp": START + 200}
    assert (reviewer["metadata"]["userId"], reviewer["metadata"]["说明"]) == ("user-42", "测试")
    assert reviewer["metadata"]["kode"]["permission"] == {"mode": "auto"}
    assert {row["model"] for row in rows(looking, "sessions")} == {"claude-sonnet-4-5"}
    assert API_KEY not in repr(looking.everything())


def test_calls_tell_results_apart_and_name_their_message(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    calls = {row["tool_call_id"]: row for row in rows(looking, "tool_call_records")}
    assert [(calls[key]["has_output"], calls[key]["output"]) for key in ("t1", "t2", "t9")] == [
        (True, 0),
        (True, None),
        (False, None),
    ]
    (asking,) = rows(looking, "messages", session_id=REVIEWER, seq=1)
    assert [calls[key]["message_id"] for key in ("t1", "t2", "t9")] == [asking["id"], asking["id"], None]
    assert calls["t9"]["state"] == "approval_required"
    assert calls["t1"]["audit_trail"][0] == {"state": "pending", "at": "2026-11-21T05:47:50.514000Z"}


@pytest.mark.parametrize("value", [None, False, 0, "", -0.0, [], {"\0": "\ud800"}])
def test_inputs_and_results_come_back_as_they_were(
    store: Store, looking: Looking[Blocking], base: Path, value: Any
) -> None:
    write(base / FORK / "runtime" / "tool-calls.json", [call("t1", "x", "COMPLETED", START, input=value, result=value)])
    import_store(store, base)
    (found,) = rows(looking, "tool_call_records", agent_id=FORK)
    assert repr((found["input"], found["output"], found["has_output"])) == repr((value, value, True))


def test_messages_keep_their_order_in_time(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    found = sorted(rows(looking, "messages", session_id=REVIEWER), key=lambda row: int(row["seq"]))
    times = [row["created_at"] for row in found]
    assert times == sorted(set(times))
    assert times[0].isoformat() == "2026-11-21T05:47:50.464000+00:00"


def test_the_same_keys_are_made_in_every_store(store: Store, base: Path, tmp_path: Path) -> None:
    import_store(store, base)
    with Store.open(f"sqlite:///{tmp_path}/other.sqlite") as other:
        import_store(other, base)
        assert other.bind(Looking[Blocking]).everything() == store.bind(Looking[Blocking]).everything()


def test_a_snapshot_of_a_compressed_conversation_shows_it_as_it_was(
    store: Store, looking: Looking[Blocking], base: Path
) -> None:
    import_store(store, base)
    places = {row["snapshot_id"]: (row["generation"], row["up_to_seq"]) for row in rows(looking, "snapshots")}
    assert places == {"sfp-3": (0, 3), "team/before": (0, 3), "after": (1, 1)}
    (held,) = rows(looking, "sessions", id=RUNNER)
    assert (held["generation"], held["message_count"]) == (1, 3)


def test_a_directory_that_grew_brings_what_is_new(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    folder = base / REVIEWER
    file = folder / "runtime" / "messages.json"
    messages = [*json.loads(file.read_text()), said("More"), said("Done", "assistant")]
    write(file, messages)
    calls = json.loads((folder / "runtime" / "tool-calls.json").read_text())
    calls[2] |= {"state": "COMPLETED", "result": False, "updatedAt": START + 5000, "completedAt": START + 5000}
    calls.append(call("t10", "fs_read", "PENDING", START + 5100))
    write(folder / "runtime" / "tool-calls.json", calls)
    write(folder / "runtime" / "todos.json", {"todos": [], "version": 2, "updatedAt": START + 5000})
    write(folder / "snapshots" / "sfp-7.json", {"messages": messages, "createdAt": iso(START + 5000)})
    info = json.loads((folder / "meta.json").read_text())
    info["lastSfpIndex"] = 7
    info["metadata"]["updatedAt"] = iso(START + 5000)
    write(folder / "meta.json", info)
    report = import_store(store, base)
    check_all_is_there(store, looking, base)
    new = {kind: counts.imported for kind, counts in report.counts.items() if counts.imported}
    assert new == {"agents": 1, "messages": 2, "tool_calls": 2, "snapshots": 1, "todos": 1}
    (held,) = rows(looking, "sessions", id=REVIEWER)
    assert (held["generation"], held["next_seq"]) == (0, 8)
    (todos,) = rows(looking, "agent_documents", kind="todos")
    assert (todos["version"], todos["content"]["version"]) == (2, 2)
    (agent,) = rows(looking, "agents", agent_id=REVIEWER)
    assert (agent["last_sfp_index"], agent["version"]) == (7, 2)
    (ended,) = rows(looking, "tool_call_records", tool_call_id="t9")
    assert (ended["state"], ended["has_output"], ended["output"]) == ("completed", True, False)
    assert import_store(store, base).imported == 0


def test_a_conversation_that_was_compressed_since_keeps_its_snapshots(
    store: Store, looking: Looking[Blocking], base: Path
) -> None:
    import_store(store, base)
    was = as_it_was(store, REVIEWER, "sfp-3")
    folder = base / REVIEWER
    between = [said("summary 1", "system"), said("go on"), said("yes", "assistant")]
    write(folder / "snapshots" / "between.json", {"messages": between, "createdAt": iso(START + 6000)})
    write(folder / "runtime" / "messages.json", [said("summary 2", "system"), between[2]])
    report = import_store(store, base)
    check_all_is_there(store, looking, base)
    assert as_it_was(store, REVIEWER, "sfp-3") == was
    (held,) = rows(looking, "sessions", id=REVIEWER)
    assert (held["generation"], held["message_count"]) == (2, 2)
    assert report.counts["snapshots"].imported == 1
    assert import_store(store, base).imported == 0


def test_a_snapshot_that_was_taken_again_is_replaced(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    file = base / REVIEWER / "snapshots" / "sfp-3.json"
    taken = json.loads(file.read_bytes())
    write(file, {**taken, "messages": taken["messages"][:2], "createdAt": iso(START + 6000)})
    assert import_store(store, base).counts["snapshots"].imported == 1
    check_all_is_there(store, looking, base)
    assert import_store(store, base).imported == 0


def test_a_snapshot_that_came_later_leaves_the_conversation_as_it_is(
    store: Store, looking: Looking[Blocking], base: Path
) -> None:
    import_store(store, base)
    late = [said("unheard of"), said("so far", "assistant")]
    write(base / FORK / "snapshots" / "late.json", {"messages": late, "createdAt": iso(START + 6000)})
    write(base / FORK / "snapshots" / "none.json", {"messages": [], "createdAt": iso(START + 6000)})
    import_store(store, base)
    check_all_is_there(store, looking, base)
    assert import_store(store, base).imported == 0


def test_what_went_on_in_the_store_is_never_written_over(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    store.messages.append(FORK, role="user", content="from here")
    there = store.messages.history(FORK)
    assert import_store(store, base).imported == 0
    assert store.messages.history(FORK) == there
    write(base / FORK / "runtime" / "messages.json", [said("from there")] * 9)
    write(base / FORK / "snapshots" / "x.json", {"messages": [said("from there")], "createdAt": iso(START)})
    report = import_store(store, base)
    assert store.messages.history(FORK) == there
    assert [(note.table, note.key.startswith(FORK)) for note in report.set_aside] == [
        ("messages", True),
        ("snapshots", True),
    ]
    assert report.agents[FORK]["messages"].set_aside == 9


def test_what_was_deleted_in_the_store_stays_deleted(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    looking.delete(REVIEWER)
    there = looking.everything()
    write(base / REVIEWER / "runtime" / "messages.json", [said("new")])
    report = import_store(store, base)
    assert looking.everything() == there
    assert [(note.key, note.why) for note in report.set_aside] == [(REVIEWER, "it was deleted in the store")]
    assert report.agents[REVIEWER]["agents"].set_aside == 1


def test_what_was_removed_from_the_store_comes_back(store: Store, looking: Looking[Blocking], base: Path) -> None:
    import_store(store, base)
    there = looking.everything()
    for agent_id in (FORK, REVIEWER):
        looking.remove(agent_id)
    assert rows(looking, "tool_call_records", agent_id=REVIEWER) == []
    import_store(store, base)
    assert looking.everything() == there


def test_an_agent_that_no_import_brought_is_left_alone(store: Store, looking: Looking[Blocking], base: Path) -> None:
    looking.make_agent(REVIEWER)
    there = rows(looking, "agents", agent_id=REVIEWER)
    report = import_store(store, base)
    assert rows(looking, "agents", agent_id=REVIEWER) == there
    assert rows(looking, "messages", agent_id=REVIEWER) == []
    assert "did not come from here" in report.set_aside[0].why
    # Its fork is an agent of its own.
    assert len(store.messages.history(FORK)) == 4
    assert import_store(store, base).imported == 0


def test_a_fork_without_its_parent_comes_in_alone(store: Store, looking: Looking[Blocking], base: Path) -> None:
    shutil.rmtree(base / REVIEWER / "runtime")
    shutil.rmtree(base / REVIEWER / "events")
    shutil.rmtree(base / REVIEWER / "snapshots")
    (base / REVIEWER / "meta.json").unlink()
    import_store(store, base)
    (fork,) = rows(looking, "agents", agent_id=FORK)
    assert (fork["parent_id"], fork["lineage"]) == (None, [REVIEWER])


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_keeps_nothing_else_out(store: Store, looking: Looking[Blocking], base: Path, name: str) -> None:
    done = damage(base, name)
    report = import_store(store, base)
    check_all_is_there(store, looking, base)
    notes = report.repairs if done.repaired else report.set_aside
    assert [note for note in notes if note.key == done.file and done.reason in note.why]
    assert len(rows(looking, "agents")) == 4
    for counts in report.counts.values():
        assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged


def test_calls_that_became_readable_find_their_messages(store: Store, looking: Looking[Blocking], base: Path) -> None:
    file = base / REVIEWER / "runtime" / "tool-calls.json"
    whole = file.read_bytes()
    damage(base, "tool calls empty")
    import_store(store, base)
    file.write_bytes(whole)
    assert import_store(store, base).counts["tool_calls"].imported == 3
    (asking,) = rows(looking, "messages", session_id=REVIEWER, seq=1)
    found = rows(looking, "tool_call_records", message_id=asking["id"])
    assert sorted(row["tool_call_id"] for row in found) == ["t1", "t2"]


def test_messages_that_became_readable_come_in_later(store: Store, looking: Looking[Blocking], base: Path) -> None:
    file = base / REVIEWER / "runtime" / "messages.json"
    whole = file.read_bytes()
    damage(base, "messages torn")
    import_store(store, base)
    assert store.messages.history(REVIEWER) == []
    assert rows(looking, "snapshots", agent_id=REVIEWER) == []
    file.write_bytes(whole)
    report = import_store(store, base)
    assert (report.counts["messages"].imported, report.counts["snapshots"].imported) == (6, 1)
    check_all_is_there(store, looking, base)


def test_messages_that_became_unreadable_take_nothing_away(
    store: Store, looking: Looking[Blocking], base: Path
) -> None:
    import_store(store, base)
    there = looking.everything()
    damage(base, "messages torn")
    assert import_store(store, base).imported == 0
    assert looking.everything() == there


def test_an_agent_comes_in_whole_or_not_at_all(
    store: Store, looking: Looking[Blocking], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember = conversation.Writer._remember

    def fail(self: conversation.Writer, digest: str) -> None:
        if self._session_id == RUNNER:
            raise UnavailableError("the disk is full")
        remember(self, digest)

    monkeypatch.setattr(conversation.Writer, "_remember", fail)
    with pytest.raises(UnavailableError):
        import_store(store, base)
    assert {row["agent_id"] for row in rows(looking, "agents")} == {REVIEWER, FORK}
    assert rows(looking, "sessions", id=RUNNER) == []
    monkeypatch.undo()
    import_store(store, base)
    check_all_is_there(store, looking, base)


def test_two_imports_at_once_bring_everything_once(store: Store, looking: Looking[Blocking], base: Path) -> None:
    reports: list[Any] = []
    threads = [threading.Thread(target=lambda: reports.append(import_store(store, base))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_all_is_there(store, looking, base)
    assert sum(report.counts["messages"].imported for report in reports) == 17
    assert sum(report.counts["agents"].imported for report in reports) == 4


def test_what_the_store_refuses_is_set_aside_alone(url: str, base: Path) -> None:
    file = base / FORK / "runtime" / "messages.json"
    write(file, [said("small"), said("x" * 5000), said("small too")])
    write(base / FORK / "runtime" / "todos.json", {"todos": ["x" * 5000]})
    write(base / RUNNER / "meta.json", meta(RUNNER, START + 600, 3, extra="x" * 5000))
    with Store.open(Settings(url=SecretStr(url), max_payload=4000)) as store:
        report = import_store(store, base)
        assert [each["content"][0]["text"] for each in store.messages.history(FORK)] == ["small", "small too"]
        told = {(note.table, note.key) for note in report.set_aside}
        assert told == {
            ("messages", f"{FORK} message 1"),
            ("todos", f"{FORK}/runtime/todos.json"),
            ("agents", RUNNER),
        }
        assert report.agents[RUNNER]["messages"].set_aside == 3
        assert len(store.messages.history(KILLED)) == 4


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample is not at hand")
def test_the_sample_arrives_with_its_known_numbers(store: Store, looking: Looking[Blocking]) -> None:
    report = import_store(store, SAMPLE)
    check_all_is_there(store, looking, SAMPLE)
    counts = {kind: each.imported for kind, each in report.counts.items()}
    assert counts == {
        "agents": 6,
        "messages": 45,
        "tool_calls": 7,
        "snapshots": 2,
        "todos": 1,
        "media_caches": 1,
        "history_windows": 7,
        "compressions": 7,
        "recovered_files": 7,
        "events": 624,
    }
    assert not report.set_aside
    assert import_store(store, SAMPLE).imported == 0
