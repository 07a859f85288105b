"""A bad file spoils nothing but itself: it is told with its reason, and everything else is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentos_store.importers.kode import files
from agentos_store.importers.kode.directory import open_store
from agentos_store.importers.kode.records import AgentRecord
from agentos_store.testing.kode_stores import DAMAGES, FORK, REVIEWER, damage, make_kode_store, said, write

Shape = dict[str, list[int | None]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with everything in it."""
    make_kode_store(tmp_path / "kode")
    return tmp_path / "kode"


def agents_of(base: Path) -> dict[str, AgentRecord]:
    return {agent.agent_id: agent for agent in open_store(base).agents()}


def shape_of(agents: dict[str, AgentRecord]) -> Shape:
    return {
        key: [
            None if agent.messages is None else len(agent.messages),
            None if agent.calls is None else len(agent.calls),
            len(agent.documents),
            len(agent.snapshots),
            sum(channel.lines for channel in agent.events.values()),
        ]
        for key, agent in agents.items()
    }


RUNNER = DAMAGES["info with a byte order mark"].file.partition("/")[0]
KILLED = DAMAGES["write-ahead log torn"].file.partition("/")[0]
MESSAGES, CALLS, DOCUMENTS, SNAPSHOTS, LINES = range(5)
LEFT: dict[str, tuple[str, int, int | None]] = {
    "messages torn": (REVIEWER, MESSAGES, None),
    "tool calls empty": (REVIEWER, CALLS, None),
    "write-ahead log torn": (KILLED, MESSAGES, 3),
    "window of another encoding": (RUNNER, DOCUMENTS, 3),
    "compression nested too deep": (RUNNER, DOCUMENTS, 3),
    "snapshot with NaN": (REVIEWER, SNAPSHOTS, 0),
    "todos of zeros": (REVIEWER, DOCUMENTS, 0),
    "log with a torn line": (REVIEWER, LINES, 4),
}
"""What each damage leaves of the data that it is done to; all of it unless the damage is named here."""


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_told_and_everything_else_is_read(base: Path, name: str) -> None:
    expected = shape_of(agents_of(base))
    done = damage(base, name)
    if name in LEFT:
        key, part, left = LEFT[name]
        expected[key][part] = left
    agents = agents_of(base)
    assert shape_of(agents) == expected
    told = [problem for agent in agents.values() for problem in agent.problems]
    repairs = [repair for agent in agents.values() for repair in agent.repairs if "secret" not in repair.what]
    assert [len(told), len(repairs)] == [not done.repaired, done.repaired]
    if done.repaired:
        assert (repairs[0].table, repairs[0].key) == (done.kind, done.file)
        assert done.reason in repairs[0].what
    else:
        assert (told[0].table, told[0].key) == (done.kind, done.file)
        assert done.reason in told[0].reason


def test_ten_damages_at_once_are_ten_reports(base: Path) -> None:
    for name in DAMAGES:
        damage(base, name)
    agents = agents_of(base)
    told = {problem.key for agent in agents.values() for problem in agent.problems}
    repaired = {repair.key for agent in agents.values() for repair in agent.repairs if "secret" not in repair.what}
    assert told | repaired == {each.file for each in DAMAGES.values()}
    assert len(DAMAGES) == 10
    assert len(agents) == 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe[\0]\0", "it is written in UTF-16 or UTF-32, not in UTF-8"),
        (b"[1e999]", "it holds a number that is too large"),
        (b"[" + b"9" * 5000 + b"]", "it holds a number of too many digits"),
        (b"[Infinity]", "it holds Infinity, which is no JSON"),
        (b"[1,]", "it is no JSON, from character 3 on"),
        (b"[] []", "it is no JSON, from character 3 on"),
        (b'["abc', "its JSON breaks off"),
        (b" \n", "it is empty"),
        (b'"text"', "it is no list"),
        (b"[" * 100_000, "it is nested too deep"),
    ],
)
def test_what_is_no_list_in_json_is_never_read_as_empty(base: Path, content: bytes, reason: str) -> None:
    (base / FORK / "runtime" / "messages.json").write_bytes(content)
    agent = agents_of(base)[FORK]
    assert agent.messages is None
    assert [problem.reason for problem in agent.problems] == [reason]


def test_bytes_that_are_no_text_are_read_as_kode_reads_them(base: Path) -> None:
    (base / FORK / "runtime" / "messages.json").write_bytes('[{"role": "user", "content": "café"}]'.encode("latin-1"))
    agent = agents_of(base)[FORK]
    assert [message.content for message in agent.messages or []] == ["caf\ufffd"]
    assert "bytes that are no UTF-8 became U+FFFD, as KODE itself reads them" in {r.what for r in agent.repairs}


def test_a_log_with_bad_lines_gives_all_others(base: Path) -> None:
    log = base / REVIEWER / "events" / "progress.log"
    good = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(good[0] + b"\0\0\0" + good[1] + b"no json\n\n[]\n" + good[2] + b'{"cursor":9,"book')
    agent = agents_of(base)[REVIEWER]
    assert (agent.events["progress"].lines, agent.events["progress"].distinct) == (3, 2)
    assert [(problem.key.rpartition("/")[2], problem.reason) for problem in agent.problems] == [
        ("progress.log", "its last line is torn and was dropped"),
        ("progress.log line 3", "it is no JSON, from character 0 on"),
        ("progress.log line 4", "it is no event"),
    ]
    assert "NUL bytes were dropped" in {repair.what for repair in agent.repairs}


def test_many_bad_lines_are_told_in_few_words(base: Path) -> None:
    log = base / REVIEWER / "events" / "progress.log"
    log.write_bytes(b"no json\n" * 500)
    problems = agents_of(base)[REVIEWER].problems
    assert len(problems) == 22
    assert sum(problem.reason.startswith("it is no JSON") for problem in problems) == 21
    assert problems[-1].reason == "479 more of its lines are no events"


def test_a_file_that_changes_once_is_read_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_all, file = files.read_all, base / FORK / "runtime" / "messages.json"
    before = file.read_text()
    changes: list[int] = []

    def change_meanwhile(opened: int) -> bytes:
        content = read_all(opened)
        if os.fstat(opened).st_ino == file.stat().st_ino and not changes:
            changes.append(1)
            write(file, [said("new")] * 9)
        return content

    monkeypatch.setattr(files, "read_all", change_meanwhile)
    agent = agents_of(base)[FORK]
    assert (len(agent.messages or []), agent.problems, file.read_text() != before) == (9, [], True)


def test_a_file_that_changes_twice_is_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_all, file = files.read_all, base / FORK / "runtime" / "messages.json"
    changes: list[int] = []

    def change_meanwhile(opened: int) -> bytes:
        content = read_all(opened)
        if os.fstat(opened).st_ino == file.stat().st_ino:
            changes.append(1)
            write(file, [said("new")] * (5 + len(changes)))
        return content

    monkeypatch.setattr(files, "read_all", change_meanwhile)
    agent = agents_of(base)[FORK]
    assert agent.messages is None
    assert [problem.reason for problem in agent.problems] == ["it was written to while it was read, twice"]
