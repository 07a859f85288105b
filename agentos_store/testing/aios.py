"""Small databases and logs of the AIOS Storage Manager, as it leaves them on disk, for tests.

The same arguments make the same rows and lines. With flaws there is one of each kind that damage and hand work leave
behind, all in rows or lines of their own.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

KINDS: Final = ("agents", "tasks", "sessions", "contexts", "events")
"""In the order of the importer."""

START: Final = 1_772_078_400.25
"""Seconds since 1970 at which the first row was made: 2026-02-26T04:00:00.25Z."""

STATS_KEY: Final = "sk-sample-NOT-A-REAL-KEY"
"""A secret in the statistics of an agent."""

SCHEMA: Final = """
CREATE TABLE agent_states (
    agent_id TEXT PRIMARY KEY, role TEXT NOT NULL, goal TEXT, backstory TEXT, state TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, last_task_id TEXT, stats_json TEXT
);
CREATE TABLE contexts (
    context_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, session_id TEXT, context_data TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL
);
CREATE TABLE events (
    event_id TEXT PRIMARY KEY, event_type TEXT NOT NULL, agent_id TEXT, timestamp REAL NOT NULL, data_json TEXT,
    severity TEXT DEFAULT 'info'
);
CREATE TABLE task_history (
    task_id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, task_type TEXT NOT NULL, priority TEXT DEFAULT 'normal',
    status TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, completed_at REAL, duration REAL,
    result_json TEXT, error_message TEXT
);
CREATE INDEX idx_events_timestamp ON events(timestamp);
CREATE INDEX idx_events_agent_id ON events(agent_id);
CREATE INDEX idx_events_type ON events(event_type);
CREATE INDEX idx_contexts_agent_id ON contexts(agent_id);
CREATE INDEX idx_contexts_expires_at ON contexts(expires_at);
CREATE INDEX idx_task_history_agent_id ON task_history(agent_id);
CREATE INDEX idx_task_history_status ON task_history(status);
CREATE INDEX idx_task_history_created_at ON task_history(created_at);
"""

_AGENTS: Final = (
    ("coder_1", "coder", "Write clean code", "Expert Python developer", "idle"),
    ("analyst_1", "analyst", "分析日志", "数据分析专家", "busy"),
    ("monitor_1", "monitor", None, None, "failed"),
    ("old_1", "coder", "", "", "archived"),
)
_TASKS: Final = (
    ("pending", "low"),
    ("running", "normal"),
    ("completed", "high"),
    ("failed", "critical"),
)
_SEVERITIES: Final = ("info", "warning", "error", "critical")

How = Literal["imported", "repaired", "set_aside"]


@dataclass
class Expected:
    """What an import of one kind is to find."""

    rows: int = 0
    imported: int = 0
    repaired: int = 0
    """Of the imported ones."""
    set_aside: int = 0


@dataclass
class Manifest:
    """What is known of a file that was made."""

    expected: dict[str, Expected] = field(default_factory=lambda: {kind: Expected() for kind in KINDS})
    flaws: list[str] = field(default_factory=list)

    def expect(self, kind: str, outcome: How = "imported") -> None:
        """Note a row."""
        numbers = self.expected[kind]
        numbers.rows += 1
        numbers.imported += outcome == "repaired"
        setattr(numbers, outcome, getattr(numbers, outcome) + 1)


def make_aios_database(path: str | os.PathLike[str], *, rounds: int = 2, flaws: bool = True) -> Manifest:
    """Make an ``aios.db`` in a new file: four agents, and for each round their tasks, contexts and events."""
    if Path(path).exists():
        raise FileExistsError(path)
    # Flaws are what other programs did, which knew of no constraints.
    schema = SCHEMA.replace(" NOT NULL", "") if flaws else SCHEMA
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(schema)
        connection.execute("BEGIN")
        made = _Maker(connection)
        made.agents(rounds)
        for number in range(rounds):
            made.round(number)
        if flaws:
            made.flawed()
        connection.execute("COMMIT")
    finally:
        connection.close()
    return made.manifest


def make_event_log(path: str | os.PathLike[str], *, lines: int = 12, flaws: bool = True) -> Manifest:
    """Make an ``events.jsonl`` in a new file; with flaws its last line is torn, with NUL bytes behind it."""
    made = Manifest()
    written: list[bytes] = []
    for number in range(lines):
        written.append(event_line(number))
        made.expect("events")
    if flaws:
        for what, outcome, line in _flawed_lines(lines):
            written.append(line)
            made.flaws.append(what)
            if outcome is not None:
                made.expect("events", outcome)
    with Path(path).open("xb") as file:
        file.writelines(written)
    return made


def event_line(number: int, **more: Any) -> bytes:
    """Return a line of the log, with its end."""
    line: dict[str, Any] = {
        "type": ("task_start", "task_done", "heartbeat")[number % 3],
        "timestamp": START + number,
        "task_id": f"task_{number}",
        "message": f"第 {number} 步",
    }
    if number % 3 < 2:
        line |= {"agent_id": "coder_1", "severity": _SEVERITIES[number % 4]}
    return json.dumps(line | more, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def insert(connection: sqlite3.Connection, table: str, values: Mapping[str, object]) -> None:
    """Insert a row."""
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def _flawed_lines(number: int) -> tuple[tuple[str, How | None, bytes], ...]:
    return (
        ("two lines are alike, the first", "imported", b'{"type": "tick", "timestamp": 1772078460}\n'),
        ("two lines are alike, the second", "imported", b'{"type": "tick", "timestamp": 1772078460}\n'),
        ("a line is empty", None, b"\n"),
        ("a line has NUL bytes before it", "imported", b"\0" * 512 + event_line(number + 1)),
        ("a line ends as on Windows", "imported", event_line(number + 2).replace(b"\n", b"\r\n")),
        ("a time is ISO text", "imported", event_line(number + 3, timestamp="2026-02-26T04:01:00Z")),
        ("a line has no time", "repaired", b'{"type": "untimed"}\n'),
        ("a line has no type", "repaired", b'{"timestamp": 1772078461.5, "agent_id": "coder_1"}\n'),
        ("a severity is unknown", "repaired", event_line(number + 4, severity="dire")),
        ("a severity is another word", "repaired", event_line(number + 5, severity="WARN")),
        ("an agent is no text", "repaired", event_line(number + 6, agent_id=7)),
        ("a time is no time", "repaired", event_line(number + 7, timestamp="soon")),
        ("a text is no UTF-8", "repaired", '{"type": "café", "timestamp": 1772078462}\n'.encode("latin-1")),
        ("a line is no object", "set_aside", b"[1, 2]\n"),
        ("a line is no JSON", "set_aside", b"INFO task started\n"),
        ("a line holds NaN", "set_aside", b'{"type": "load", "value": NaN}\n'),
        ("a line is nested too deep", "set_aside", b'{"type":' + b"[" * 2000 + b"]" * 2000 + b"}\n"),
        ("the last line is torn", "set_aside", b'{"type": "task_done", "agent_id": "cod' + b"\0" * 300),
    )


class _Maker:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.manifest = Manifest()
        self.moment = START
        self.numbers = 0

    def later(self) -> float:
        self.moment += 1.000123
        return self.moment

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # -- a believable database

    def agents(self, rounds: int) -> None:
        for agent_id, role, goal, backstory, state in _AGENTS:
            stats: dict[str, object] = {"tasks_completed": 10, "success_rate": 0.9}
            outcome: How = "imported"
            if agent_id == "monitor_1":
                stats |= {"api_key": STATS_KEY}
                outcome = "repaired"
            self.agent(
                agent_id,
                role=role,
                goal=goal,
                backstory=backstory,
                state=state,
                last_task_id="task_coder_1_0_3" if rounds and agent_id == "coder_1" else None,
                stats_json=None if agent_id == "old_1" else json.dumps(stats),
            )
            self.manifest.expect("agents", outcome)

    def round(self, number: int) -> None:
        for agent_id, *_ in _AGENTS[:2]:
            for place, (status, priority) in enumerate(_TASKS):
                self.task(f"task_{agent_id}_{number}_{place}", status, agent_id=agent_id, priority=priority)
                self.manifest.expect("tasks", "repaired" if status == "failed" and number else "imported")
            session_id = f"session_{agent_id}_{number}"
            for place in range(2):
                self.context(
                    f"ctx_{agent_id}_{number}_{place}",
                    agent_id=agent_id,
                    session_id=session_id if place == 0 else None,
                    # Long past, and far ahead.
                    expires_at=None if number else (START + 3600, 4_000_000_000.5)[place],
                )
                self.manifest.expect("contexts")
            self.manifest.expect("sessions")
            for place, severity in enumerate(_SEVERITIES):
                self.event(f"evt_{agent_id}_{number}_{place}", agent_id=agent_id, severity=severity)
                self.manifest.expect("events")

    def agent(self, agent_id: str | None, **values: object) -> None:
        now = self.later()
        given = {"role": "coder", "state": "idle", "created_at": now, "updated_at": now + 60, **values}
        insert(self.connection, "agent_states", {"agent_id": agent_id, **given})

    def task(self, task_id: str | None, status: str | None, **values: object) -> None:
        begun, ended = status != "pending", status in {"completed", "failed"}
        is_first = str(task_id).rpartition("_")[0].endswith("_0")
        given: dict[str, object] = {
            "agent_id": "coder_1",
            "task_type": "code",
            "priority": "normal",
            "created_at": self.later(),
            "started_at": self.later() if begun else None,
            "completed_at": self.later() if ended else None,
            "duration": 10.5 if status == "completed" else None,
            "result_json": json.dumps({"output": "成功"}, ensure_ascii=False) if status == "completed" else None,
            "error_message": "超时" if status == "failed" and is_first else None,
            **values,
        }
        insert(self.connection, "task_history", {"task_id": task_id, "status": status, **given})

    def context(self, context_id: str | None, **values: object) -> None:
        data = {"current_task": "refactor", "variables": {"x": 1, "阈值": 1e16}, "token": STATS_KEY}
        given = {
            "agent_id": "coder_1",
            "context_data": json.dumps(data, ensure_ascii=False),
            "created_at": self.later(),
            **values,
        }
        insert(self.connection, "contexts", {"context_id": context_id, **given})

    def event(self, event_id: str | None, **values: object) -> None:
        data = {"task_id": f"task_{self.number()}", "description": "Refactor code"}
        given = {
            "event_type": "task_start",
            "agent_id": "coder_1",
            "timestamp": self.later(),
            "data_json": json.dumps(data),
            "severity": "info",
            **values,
        }
        insert(self.connection, "events", {"event_id": event_id, **given})

    # -- what goes wrong

    def flaw(self, what: str, kind: str, outcome: How = "repaired") -> None:
        self.manifest.flaws.append(what)
        self.manifest.expect(kind, outcome)

    def flawed(self) -> None:
        self.flawed_agents()
        self.flawed_tasks()
        self.flawed_contexts()
        self.flawed_events()

    def flawed_agents(self) -> None:
        flaws: tuple[tuple[str, How, dict[str, object]], ...] = (
            ("a state is unknown", "repaired", {"state": "zombie"}),
            ("a state is in capitals", "repaired", {"state": "BUSY"}),
            ("a state is missing", "repaired", {"state": None}),
            ("statistics are no JSON", "repaired", {"stats_json": "{'done': 1}"}),
            ("statistics are no object", "repaired", {"stats_json": "[1]"}),
            ("an agent has no time", "repaired", {"created_at": None, "updated_at": None}),
            ("a time is infinite", "repaired", {"created_at": float("inf")}),
            ("a goal holds U+0000", "repaired", {"goal": "zero\x00byte"}),
            ("a last task is gone", "repaired", {"last_task_id": "gone"}),
            ("an agent has no key", "set_aside", {"agent_id": None}),
            ("an agent's key has control characters", "set_aside", {"agent_id": "bad\x01key"}),
        )
        for what, outcome, values in flaws:
            given: dict[str, Any] = {"agent_id": f"flawed_{self.number()}", **values}
            self.agent(given.pop("agent_id"), **given)
            self.flaw(what, "agents", outcome)

    def flawed_tasks(self) -> None:
        flaws: tuple[tuple[str, How, dict[str, object]], ...] = (
            ("a task's agent is gone", "repaired", {"agent_id": "gone"}),
            ("a task's status is unknown", "repaired", {"status": "zombie"}),
            ("a task's status is missing", "repaired", {"status": None}),
            ("a priority is unknown", "repaired", {"priority": "urgent"}),
            ("a priority is a number", "imported", {"priority": "7"}),
            ("a priority is missing", "repaired", {"priority": None}),
            ("a task has no type", "repaired", {"task_type": None}),
            ("a result is no JSON", "repaired", {"result_json": '{"output": "Succ'}),
            ("a duration is no number", "repaired", {"duration": "long"}),
            ("a duration is below 0", "imported", {"duration": -2.5}),
            ("a start is no time", "repaired", {"started_at": "soon"}),
            ("a task has no key", "set_aside", {"task_id": None}),
        )
        for what, outcome, values in flaws:
            given: dict[str, Any] = {"task_id": f"flawed_{self.number()}", "status": "completed", **values}
            self.task(given.pop("task_id"), given.pop("status"), **given)
            self.flaw(what, "tasks", outcome)

    def flawed_contexts(self) -> None:
        flaws: tuple[tuple[str, How, dict[str, object]], ...] = (
            ("a context's agent is gone", "repaired", {"agent_id": "gone"}),
            ("a context is no JSON", "repaired", {"context_data": '{"x": '}),
            ("a context is NULL", "imported", {"context_data": None}),
            ("an expiry is no time", "repaired", {"expires_at": "tomorrow"}),
            ("a context's session can be no key", "repaired", {"session_id": "bad\x01key"}),
            ("a context has no time", "repaired", {"created_at": None}),
            ("a context has no key", "set_aside", {"context_id": None}),
        )
        for what, outcome, values in flaws:
            given: dict[str, Any] = {"context_id": f"flawed_{self.number()}", **values}
            self.context(given.pop("context_id"), **given)
            self.flaw(what, "contexts", outcome)

    def flawed_events(self) -> None:
        flaws: tuple[tuple[str, How, dict[str, object]], ...] = (
            ("an event's agent is gone", "imported", {"agent_id": "gone"}),
            ("an event's severity is unknown", "repaired", {"severity": "dire"}),
            ("an event's severity is missing", "imported", {"severity": None}),
            ("an event's data are no JSON", "repaired", {"data_json": '{"task_id": "ta'}),
            ("an event's data are NULL", "imported", {"data_json": None}),
            ("an event has no type", "repaired", {"event_type": None}),
            ("an event's type is long", "repaired", {"event_type": "x" * 300}),
            ("an event has no time", "repaired", {"timestamp": None}),
            ("an event has no key", "set_aside", {"event_id": None}),
        )
        for what, outcome, values in flaws:
            given: dict[str, Any] = {"event_id": f"flawed_{self.number()}", **values}
            self.event(given.pop("event_id"), **given)
            self.flaw(what, "events", outcome)
