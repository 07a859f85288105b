"""Directories of KODE's JSONStore are read whole, and whatever is not an agent's is told."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.importers.kode.directory import KodeStore, open_store
from agentos_store.importers.kode.records import AgentRecord
from agentos_store.importers.kode.redaction import REDACTED, redact
from agentos_store.testing.kode_stores import (
    API_KEY,
    FORK,
    KILLED,
    REVIEWER,
    RUNNER,
    START,
    call,
    make_kode_store,
    meta,
    said,
    write,
)

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "kode-jsonstore"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with everything in it."""
    make_kode_store(tmp_path / "kode")
    return tmp_path / "kode"


def read(base: Path, **options: Any) -> tuple[KodeStore, dict[str, AgentRecord]]:
    store = open_store(base, **options)
    return store, {agent.agent_id: agent for agent in store.agents()}


def told(store: KodeStore) -> dict[str, str]:
    return {problem.key: problem.reason for problem in store.findings.problems}


def test_all_that_is_in_a_directory_is_read(tmp_path: Path) -> None:
    known = make_kode_store(tmp_path / "kode")
    store, agents = read(tmp_path / "kode")
    found = {
        key: {
            "messages": len(agent.messages or []),
            "calls": len(agent.calls or []),
            "documents": len(agent.documents),
            "snapshots": len(agent.snapshots),
            "lines": sum(channel.lines for channel in agent.events.values()),
            "distinct": sum(channel.distinct for channel in agent.events.values()),
        }
        for key, agent in agents.items()
    }
    assert found == known
    assert [agent.parent_id for agent in agents.values()] == [None, REVIEWER, None, None]
    assert (store.shells, store.total, isinstance(store.pool, dict)) == (1, 4, True)
    assert not store.findings.problems
    assert [agent.problems for agent in agents.values()] == [[]] * 4
    assert agents[KILLED].ignored == 1


def test_nothing_in_the_directory_is_touched(base: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(base.rglob("*"))]

    before = state()
    read(base)
    assert state() == before


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample is not at hand")
def test_the_known_numbers_of_the_sample_come_out() -> None:
    store, agents = read(SAMPLE)
    out = [(len(agent.messages or []), len(agent.calls or []), len(agent.snapshots)) for agent in agents.values()]
    reviewer, runner, killed = (
        agents["agt-01KQ5V3S7JZQ8M2W9T4R6X1B0C"],
        agents["agt-01KQ5V3V9M2R6T8X4Z1C3E5G7J"],
        agents["agt-01KQ5V3XBP4T8W0Z6C3E5G7J9M"],
    )
    assert len(agents) == 6
    assert out == [(12, 5, 2), (8, 0, 0), (6, 0, 0), (8, 1, 0), (7, 1, 0), (4, 0, 0)]
    lines = {name: channel.lines for name, channel in reviewer.events.items()}
    assert lines == {"progress": 34, "control": 4, "monitor": 67}
    kinds = Counter(document.kind for document in runner.documents)
    assert kinds == {"history_window": 7, "compression": 7, "recovered_file": 7}
    assert (runner.events["progress"].lines, runner.events["progress"].distinct) == (342, 314)
    assert len(killed.messages or []) == 4
    sealed = next(iter(agents["agt-01KQ5V3WAN3S7V9Y5B2D4F6H8K"].calls or []))
    assert (sealed.state, sealed.is_error, sealed.has_output) == ("sealed", True, False)
    assert not any(agent.problems for agent in agents.values())
    assert not store.findings.problems
    assert isinstance(store.pool, dict)


def test_values_are_told_apart_and_times_are_instants(base: Path) -> None:
    _, agents = read(base)
    reviewer = agents[REVIEWER]
    calls = {each.tool_call_id: each for each in reviewer.calls or []}
    assert [(each.has_output, each.output, each.is_error) for each in calls.values()] == [
        (True, 0, None),
        (True, None, False),
        (False, None, None),
    ]
    assert [each.approval for each in calls.values()] == [
        None,
        {
            "required": True,
            "decision": "approved",
            "by": "api",
            "at": "2026-11-21T05:47:50.554000Z",
            "note": "safe",
        },
        {"required": True},
    ]
    assert calls["t1"].audit_trail[1] == {"state": "completed", "at": "2026-11-21T05:47:50.519000Z", "note": "end"}
    assert [(each.message, each.ordinal) for each in calls.values()] == [(1, 0), (1, 1), (None, 2)]
    assert reviewer.created_at == dt.datetime(2026, 11, 21, 5, 47, 50, 464_000, tzinfo=dt.UTC)
    assert calls["t1"].created_at - reviewer.created_at == dt.timedelta(milliseconds=50)
    assert [message.role for message in reviewer.messages or []] == ["user", "assistant"] * 3
    last = (reviewer.messages or [])[-1]
    assert last.content == [{"type": "text", "text": "\0 and \ud83d are kept; -0.0 too"}]
    recovered = [each for each in agents[RUNNER].documents if each.kind == "recovered_file"]
    assert recovered[0].content == {
        "path": "/srv/app/README.md",
        "timestamp": START + 700,
        "mtime": START + 700.315,
        "content": "# Demo\r\n\nunicode: 数据库 – ü – 🙂\n",
    }
    assert [each.snapshot_id for each in agents[RUNNER].snapshots] == ["team/before", "after"]


def test_secrets_are_redacted_unless_they_are_to_be_kept(base: Path) -> None:
    _, agents = read(base)
    _, kept = read(base, keep_secrets=True)
    assert API_KEY not in repr(agents)
    assert API_KEY in repr(kept)
    info = agents[REVIEWER].info
    assert info is not None
    assert info.metadata["userId"] == "user-42"
    config = info.metadata["kode"]
    assert isinstance(config, dict)
    assert config["modelConfig"] == {
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "apiKey": REDACTED,
        "maxTokens": 900,
    }
    assert [repair.what for repair in agents[REVIEWER].repairs] == [
        "metadata.modelConfig.apiKey: a secret, which was redacted"
    ]


@pytest.mark.parametrize(
    "secret",
    [
        {"apiKey": "x"},
        {"API_KEY": "x"},
        {"x-api-key": "x"},
        {"Authorization": "x"},
        {"clientSecret": "x"},
        {"refresh_token": ["x"]},
        {"Password": {"prod": "x"}},
        {"anything": "sk-ant-REAL-LOOKING-0123456789"},
        {"headers": {"X": "Bearer abc.def"}},
        {"url": "https://me:hunter2@example.com/v1"},
    ],
)
def test_what_looks_like_a_secret_is_one(secret: Any) -> None:
    clean, paths = redact({"deep": [secret]})
    assert REDACTED in repr(clean)
    assert len(paths) == 1
    assert not any(each in repr(clean) for each in ("'x'", "REAL", "abc.def", "hunter2"))


def test_what_does_not_look_like_a_secret_stays() -> None:
    plain: Any = {
        "maxTokens": 5,
        "tokenizer": "bpe",
        "token": 7,
        "password": "",
        "secret": None,
        "author": "x",
        "k": "skip",
    }
    assert redact(plain) == (plain, [])


def test_an_agent_without_its_info_is_read_all_the_same(base: Path) -> None:
    (base / REVIEWER / "meta.json").unlink()
    (base / FORK / "meta.json").write_text("[]")
    _, agents = read(base)
    assert [agents[key].info for key in (REVIEWER, FORK)] == [None, None]
    assert len(agents[REVIEWER].messages or []) == 6
    at = dt.datetime.fromtimestamp((START + 50) / 1000, dt.UTC)
    assert agents[REVIEWER].created_at == at
    assert agents[FORK].created_at == dt.datetime.fromtimestamp((START + 400) / 1000, dt.UTC)
    assert [repair.what for repair in agents[FORK].repairs] == [
        "it is no JSON object; the agent comes in without it",
        "createdAt: it is missing, so another time was taken",
    ]


def test_absent_messages_are_none_and_unreadable_ones_are_unknown(base: Path) -> None:
    (base / REVIEWER / "runtime" / "messages.json").unlink()
    (base / FORK / "runtime" / "messages.json").write_text('{"not": "a list"}')
    (base / KILLED / "runtime" / "messages.json").unlink()
    (base / KILLED / "runtime" / "messages.wal").write_text('{"data": nu')
    _, agents = read(base)
    assert [agents[key].messages for key in (REVIEWER, FORK, KILLED)] == [[], None, None]


def test_nested_forks_and_agents_in_groups_are_found(base: Path) -> None:
    deeper = f"{FORK}/fork-{START + 500}"
    write(base / deeper / "meta.json", meta(deeper, START + 500, 0))
    write(base / "team" / "history" / "meta.json", meta("team/history", START, 0))
    _, agents = read(base)
    assert agents[deeper].parent_id == FORK
    assert agents["team/history"].parent_id is None
    assert list(agents).index(FORK) < list(agents).index(deeper)


def test_stray_files_are_told(base: Path) -> None:
    (base / "README.md").write_text("mine")
    (base / REVIEWER / "notes.txt").write_text("mine")
    (base / REVIEWER / "runtime" / "deeper").mkdir()
    (base / REVIEWER / "runtime" / "deeper" / "more.txt").write_text("mine")
    (base / "group").mkdir()
    (base / "group" / "x.json").write_text("{}")
    (base / "empty-shell" / "left.txt").write_text("mine")
    store, agents = read(base)
    assert sorted(told(store)) == ["README.md", "empty-shell/left.txt", "group/x.json"]
    assert sorted(problem.key for problem in agents[REVIEWER].problems) == [
        f"{REVIEWER}/notes.txt",
        f"{REVIEWER}/runtime/deeper/more.txt",
    ]
    assert {problem.table for problem in agents[REVIEWER].problems} == {"stray_files"}


def test_a_source_tree_among_the_agents_is_told_in_few_words(base: Path) -> None:
    (base / "node_modules").mkdir()
    for number in range(1100):
        (base / "node_modules" / f"{number}.js").touch()
    store, _ = read(base)
    assert (len(store.findings.problems), store.findings.strays) == (1000, 1100)


def test_snapshots_share_what_they_have_in_common(base: Path) -> None:
    messages = [said("one"), {"role": "user", "content": [{"type": "text", "text": "two", "n": 1}]}, said("three")]
    write(base / FORK / "runtime" / "messages.json", messages)
    messages[1] = {"role": "user", "content": [{"type": "text", "text": "two", "n": True}]}
    write(base / FORK / "snapshots" / "s.json", {"messages": messages})
    _, agents = read(base)
    (snapshot,) = agents[FORK].snapshots
    shares = [mine is its for mine, its in zip(snapshot.messages, agents[FORK].messages or [], strict=True)]
    assert shares == [True, False, True]


def test_links_lead_nowhere_out_and_no_circle_is_walked(base: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / "meta.json", meta("outside", START, 0))
    (outside / "secret.json").write_text("[]")
    (base / "elsewhere").symlink_to(outside, target_is_directory=True)
    (base / REVIEWER / "loop").symlink_to(base, target_is_directory=True)
    (base / FORK / "runtime" / "todos.json").symlink_to(outside / "secret.json")
    (base / FORK / "runtime" / "media-cache.json").symlink_to("media-cache.json")
    (base / FORK / "runtime" / "tool-calls.json").symlink_to("nothing")
    inside = base / KILLED / "runtime" / "tool-calls.json"
    inside.symlink_to(base / REVIEWER / "runtime" / "tool-calls.json")
    os.mkfifo(base / REVIEWER / "runtime" / "media-cache.json")
    store, agents = read(base)
    assert len(agents) == 4
    assert told(store) == {"elsewhere": "it is a link to a folder, and those are not followed"}
    reasons = {problem.key: problem.reason for problem in agents[FORK].problems}
    assert reasons[f"{FORK}/runtime/todos.json"] == "it is a link that leads out of the directory"
    assert reasons[f"{FORK}/runtime/tool-calls.json"] == "it is a link to nothing"
    assert len(reasons) == 3
    assert (agents[FORK].calls, len(agents[KILLED].calls or [])) == (None, 3)
    assert [problem.reason for problem in agents[REVIEWER].problems] == [
        "it is neither a file nor a folder",
        "it is a link to a folder, and those are not followed",
    ]


def test_names_of_any_bytes_are_told_and_break_nothing(base: Path) -> None:
    write(base / os.fsdecode(b"agt-\xff\xfe") / "meta.json", meta("odd", START, 0))
    (base / "agt-\n\x1b[31m").mkdir()
    (base / ("x" * 200) / ("y" * 100)).mkdir(parents=True)
    (base / RUNNER / "history" / "recovered" / os.fsdecode(b"\xe9_1.txt")).write_bytes(b"no head, and \xe9")
    store, agents = read(base)
    reasons = told(store)
    assert reasons["agt-\\xff\\xfe"].startswith("its name is no UTF-8")
    assert reasons["agt-\\x0a\\x1b[31m"].startswith("its name has control characters")
    assert reasons[f"{'x' * 200}/{'y' * 100}"].startswith("its path is longer than 255 characters")
    (found,) = (each for each in agents[RUNNER].documents if each.key == "\ufffd_1")
    assert found.content == {"content": "no head, and \ufffd"}
    assert found.file.endswith("\\xe9_1.txt")


def test_the_folder_of_one_agent_is_refused(base: Path) -> None:
    with pytest.raises(InvalidValueError, match="the one above it"):
        open_store(base / REVIEWER)
    with pytest.raises(NotFoundError):
        open_store(base / "none")
    with pytest.raises(InvalidValueError, match="not a folder"):
        open_store(base / REVIEWER / "meta.json")


def test_a_message_that_cannot_be_stored_spoils_no_other(base: Path) -> None:
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    messages = [
        said("fine"),
        {"role": "wizard", "content": []},
        {"content": []},
        {"role": "user", "content": [{"type": "text", "text": deep}]},
        7,
        {"role": "user", "content": 5},
        {"role": "user", "content": "a text", "extra": 1, "metadata": {"a": "\0"}},
    ]
    (base / FORK / "runtime" / "messages.json").write_text(json.dumps(messages))
    _, agents = read(base)
    kept = agents[FORK].messages or []
    assert [message.position for message in kept] == [0, 6]
    assert kept[1].metadata == {"a": "\ufffd", "kode": {"extra": 1}}
    assert [problem.key for problem in agents[FORK].problems] == [
        f"{FORK}/runtime/messages message {number}" for number in (1, 2, 3, 4, 5)
    ]


def test_tool_calls_without_sense_are_repaired_or_set_aside(base: Path) -> None:
    calls = [
        call("t1", "fs_read", "COMPLETED", START, result=""),
        call("t1", "fs_read", "RUNNING", START, result=False, isError="yes"),
        call("t2", "fs_read", "FAILED", START, createdAt="soon", durationMs=-1, approval=[], auditTrail="none"),
        call("", "fs_read", "COMPLETED", START),
        call("t4", "", "COMPLETED", START),
        call("t5", "x" * 300, "COMPLETED", START),
        [],
    ]
    write(base / FORK / "runtime" / "tool-calls.json", calls)
    _, agents = read(base)
    kept = agents[FORK].calls or []
    assert [(each.tool_call_id, each.state, each.output, each.has_output) for each in kept] == [
        ("t1", "completed", "", True),
        ("t1#2", "completed", False, True),
        ("t2", "failed", None, False),
    ]
    assert (kept[2].created_at, kept[2].duration_ms, kept[2].audit_trail) == (agents[FORK].created_at, None, [])
    assert len(agents[FORK].problems) == 4
    assert {problem.table for problem in agents[FORK].problems} == {"tool_calls"}


def test_wal_lines_that_the_log_holds_are_not_read_twice(base: Path) -> None:
    _, agents = read(base)
    progress = agents[KILLED].events["progress"]
    assert (progress.lines, progress.distinct, progress.repeated) == (2, 2, 0)
    again = agents[REVIEWER].events["progress"]
    assert (again.lines, again.distinct, again.repeated) == (3, 2, 1)


def test_what_a_call_asked_for_is_linked_to_nothing_when_its_message_is_gone(base: Path) -> None:
    write(base / REVIEWER / "runtime" / "messages.json", [said("compressed since", "system")])
    _, agents = read(base)
    assert [each.message for each in agents[REVIEWER].calls or []] == [None] * 3


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://h/v1?api_key=AIzaSyD-secret&x=1", "https://h/v1?api_key=[redacted]&x=1"),
        ("--api-key=sk-ant-abcdefghijklmnopqrstuvwx", "--api-key=[redacted]"),
        ("use sk-ant-abcdefghijklmnopqrstuvwx please", "use [redacted] please"),
        ("task-abcdefghijklmnopqrs", "task-abcdefghijklmnopqrs"),
        ("max_tokens=5", "max_tokens=5"),
    ],
)
def test_a_secret_within_a_text_is_redacted(text: str, clean: str) -> None:
    assert redact({"note": text})[0] == {"note": clean}
