"""Small databases of chapter 14 (document 004), as its agent store leaves them on disk, for tests.

The same arguments make the same rows. With flaws a database has one of each kind that damage and hand work leave
behind, all in rows of their own.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

KINDS: Final = ("users", "sessions", "messages", "tasks", "tool_calls")
"""In the order of the importer."""

START: Final = dt.datetime(2026, 6, 19, 18, 27, tzinfo=dt.UTC)

SCHEMA: Final = """
CREATE TABLE users (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT, api_key_hash TEXT, quota_total INTEGER DEFAULT 100000,
    quota_used INTEGER DEFAULT 0, preferences_json TEXT DEFAULT '{}',
    created_at TEXT NOT NULL DEFAULT (datetime('now')), updated_at TEXT NOT NULL DEFAULT (datetime('now'))
);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, title TEXT DEFAULT '新对话',
    status TEXT DEFAULT 'active' CHECK(status IN ('active','paused','completed','cancelled')),
    model TEXT DEFAULT 'gpt-4o-mini', total_tokens INTEGER DEFAULT 0, total_cost REAL DEFAULT 0.0,
    message_count INTEGER DEFAULT 0, metadata_json TEXT DEFAULT '{}',
    created_at TEXT NOT NULL DEFAULT (datetime('now')), updated_at TEXT NOT NULL DEFAULT (datetime('now')),
    FOREIGN KEY (user_id) REFERENCES users(id)
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
    role TEXT NOT NULL CHECK(role IN ('system','user','assistant','tool')), content TEXT NOT NULL DEFAULT '',
    tool_calls_json TEXT, tool_call_id TEXT, token_count INTEGER DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (datetime('now')), FOREIGN KEY (session_id) REFERENCES sessions(id)
);
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, session_id TEXT NOT NULL, type TEXT NOT NULL, payload_json TEXT NOT NULL DEFAULT '{}',
    status TEXT DEFAULT 'pending'
        CHECK(status IN ('pending','running','paused','completed','failed','cancelled')),
    result_json TEXT, priority INTEGER DEFAULT 0, max_retries INTEGER DEFAULT 3, retry_count INTEGER DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (datetime('now')), started_at TEXT, completed_at TEXT,
    FOREIGN KEY (session_id) REFERENCES sessions(id)
);
CREATE TABLE tool_logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, message_id INTEGER, tool_name TEXT NOT NULL,
    input_json TEXT NOT NULL, output_json TEXT, elapsed_ms REAL, success INTEGER DEFAULT 1, error_message TEXT,
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    FOREIGN KEY (session_id) REFERENCES sessions(id), FOREIGN KEY (message_id) REFERENCES messages(id)
);
CREATE INDEX idx_messages_session ON messages(session_id, created_at);
"""

_TURNS: Final[tuple[tuple[str, str, list[dict[str, Any]] | None, int], ...]] = (
    ("user", "什么是 AI Agent?", None, 50),
    ("assistant", "AI Agent 是一种能自主感知、决策、执行的智能系统...", None, 120),
    ("user", "它由哪些组件组成?", None, 40),
    ("assistant", "", [{"name": "search", "arguments": {"query": "Agent components"}}], 80),
    ("tool", "搜索结果:LLM/规划器/记忆/工具是Agent的核心组件", None, 30),
    ("assistant", "主要由 LLM、规划器、记忆系统和工具调用四部分组成。", None, 60),
)
_TASKS: Final = ("pending", "running", "paused", "completed", "failed", "cancelled")


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
    """What is known of a database that was made."""

    expected: dict[str, Expected] = field(default_factory=lambda: {kind: Expected() for kind in KINDS})
    flaws: list[str] = field(default_factory=list)
    session_ids: list[str] = field(default_factory=list)
    """Without those of flawed sessions."""


def make_agent_store(path: str | os.PathLike[str], *, sessions: int = 3, flaws: bool = True) -> Manifest:
    """Make a database in a new file."""
    if Path(path).exists():
        raise FileExistsError(path)
    # Flaws are what other programs did, which knew of no constraints.
    schema = SCHEMA.replace(" NOT NULL", "") if flaws else SCHEMA
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(schema)
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("BEGIN")
        made = _Maker(connection)
        made.users()
        for number in range(sessions):
            made.session(number)
        if flaws:
            made.flawed()
        connection.execute("COMMIT")
    finally:
        connection.close()
    return made.manifest


def save_message(
    connection: sqlite3.Connection, session_id: str, role: str, content: str, *, tokens: int = 0, **values: object
) -> int:
    """Save a message as the agent store does, which moves the session's counters; return its number."""
    given = {"session_id": session_id, "role": role, "content": content, "token_count": tokens, **values}
    number = insert(connection, "messages", given)
    connection.execute(
        "UPDATE sessions SET message_count = message_count + 1, total_tokens = total_tokens + ? WHERE id = ?",
        (tokens, session_id),
    )
    return number


def insert(connection: sqlite3.Connection, table: str, values: Mapping[str, object]) -> int:
    """Insert a row and return its number."""
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    done = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
    return done.lastrowid or 0


class _Maker:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.manifest = Manifest()
        self.moment = START
        self.numbers: Counter[str] = Counter()

    def later(self) -> str:
        self.moment += dt.timedelta(seconds=7)
        return self.moment.strftime("%Y-%m-%d %H:%M:%S")

    def key(self) -> str:
        self.numbers["key"] += 1
        return f"{self.numbers['key'] * 0x9E3779B97F4A7C15 % 2**64:016x}"

    def expect(self, kind: str, outcome: Literal["imported", "repaired", "set_aside"] = "imported") -> None:
        numbers = self.manifest.expected[kind]
        numbers.rows += 1
        numbers.imported += outcome == "repaired"
        setattr(numbers, outcome, getattr(numbers, outcome) + 1)

    def insert(self, table: str, **values: object) -> int:
        return insert(self.connection, table, values)

    # -- a believable database

    def users(self) -> None:
        for number, name in enumerate(("Alice", "用户二")):
            self.insert(
                "users",
                id=f"user{number:012}",
                name=name,
                email=f"user{number}@example.com" if number == 0 else "",
                quota_used=1500 * number,
                preferences_json=json.dumps({"theme": "dark"}),
                created_at=self.later(),
                updated_at=self.later(),
            )
            self.expect("users")

    def session(self, number: int) -> None:
        session_id = self.add_session(f"user{number % 2:012}", title=f"学习 AI Agent {number}", total_cost=0.1 + 0.2)
        self.manifest.session_ids.append(session_id)
        self.expect("sessions")
        for role, content, calls, tokens in _TURNS:
            message_id = save_message(
                self.connection,
                session_id,
                role,
                content,
                tokens=tokens,
                tool_calls_json=None if calls is None else json.dumps(calls, ensure_ascii=False),
                tool_call_id="call_0001" if role == "tool" else None,
                created_at=self.later(),
            )
            self.expect("messages")
            if calls:
                self.tool_log(session_id, message_id=message_id, elapsed_ms=350.5)
                self.tool_log(session_id, message_id=message_id, success=0, output_json=None, error_message="超时")
                self.tool_log(session_id, output_json="null")
        for status in _TASKS:
            self.task(session_id, status)
            self.expect("tasks", "repaired" if status == "failed" else "imported")

    def add_session(self, user_id: str | None, **values: object) -> str:
        session_id = self.key()
        now = self.later()
        given: dict[str, object] = {"id": session_id, "created_at": now, "updated_at": now, **values}
        self.insert("sessions", user_id=user_id, **given)
        return session_id

    def tool_log(self, session_id: str | None, **values: object) -> None:
        given: dict[str, object] = {
            "tool_name": "search",
            "input_json": json.dumps({"query": "Agent components"}),
            "output_json": json.dumps({"results": ["LLM", "规划器"]}, ensure_ascii=False),
            "created_at": self.later(),
            **values,
        }
        self.insert("tool_logs", session_id=session_id, **given)
        if session_id in self.manifest.session_ids and not self.manifest.flaws:
            self.expect("tool_calls")

    def task(self, session_id: str, status: str | None, **values: object) -> None:
        ended = status in {"completed", "failed", "cancelled"}
        given: dict[str, object] = {
            "id": self.key(),
            "type": "summarize",
            "payload_json": json.dumps({"max_length": 200}),
            "priority": 1,
            "created_at": self.later(),
            "started_at": self.later() if status not in {"pending", "cancelled"} else None,
            "completed_at": self.later() if ended else None,
            "result_json": json.dumps({"summary": "本次对话"}, ensure_ascii=False) if status == "completed" else None,
            **values,
        }
        self.insert("tasks", session_id=session_id, status=status, **given)

    # -- what goes wrong

    def flaw(self, what: str, kind: str, outcome: Literal["imported", "repaired", "set_aside"] = "repaired") -> None:
        self.manifest.flaws.append(what)
        self.expect(kind, outcome)

    def flawed(self) -> None:
        self.flawed_users()
        self.flawed_sessions()
        # Of a session of their own, so that the others' counters are right.
        session_id = self.add_session("user000000000000", total_tokens=7, message_count=9, title="Flawed")
        self.flaw("a session's counters are not those of its messages", "sessions")
        self.flawed_messages(session_id)
        self.flawed_tasks(session_id)
        self.flawed_tool_logs(session_id)

    def flawed_users(self) -> None:
        now = self.later()
        for what, outcome, values in (
            ("two users have one address", "repaired", {"email": "user0@example.com"}),
            ("a user has no name", "repaired", {"name": None}),
            ("a user's preferences are no JSON", "repaired", {"preferences_json": "{'theme': 'dark'}"}),
            ("a quota is below 0", "repaired", {"quota_used": -5}),
            ("a quota is missing", "repaired", {"quota_total": None}),
            ("a user's time is no time", "repaired", {"created_at": "yesterday"}),
            ("a user has no key", "set_aside", {"id": None}),
        ):
            given: dict[str, object] = {"id": self.key(), "name": "Flawed", "created_at": now, "updated_at": now}
            self.insert("users", **{**given, **values})
            self.flaw(what, "users", "set_aside" if outcome == "set_aside" else "repaired")

    def flawed_sessions(self) -> None:
        flaws: tuple[tuple[str, str | None, dict[str, object]], ...] = (
            ("a session's user is gone", "gone", {}),
            ("a session has no user", None, {}),
            ("a session's status is unknown", "user000000000000", {"status": "zombie"}),
            ("a session's status is in capitals", "user000000000000", {"status": "PAUSED"}),
            ("a session's metadata are no object", "user000000000000", {"metadata_json": "[1]"}),
            ("a session's title is missing", "user000000000000", {"title": None}),
            ("a session's cost is below 0", "user000000000000", {"total_cost": -1.5}),
            ("a session's cost is infinite", "user000000000000", {"total_cost": float("inf")}),
        )
        for what, user_id, values in flaws:
            self.add_session(user_id, **values)
            self.flaw(what, "sessions")
        self.add_session("user000000000000", id="zero\x00key\x01")
        self.flaw("a session's key has control characters", "sessions", "set_aside")

    def flawed_messages(self, session_id: str) -> None:
        flaws: tuple[tuple[str, Literal["imported", "repaired", "set_aside"], dict[str, object]], ...] = (
            ("a message's session is gone", "set_aside", {"session_id": "gone"}),
            ("a role is unknown", "set_aside", {"role": "oracle"}),
            ("a role is missing", "set_aside", {"role": None}),
            ("a role is in capitals", "repaired", {"role": "User"}),
            ("tool calls are no JSON", "repaired", {"tool_calls_json": '[{"name": "sea'}),
            ("tool calls are no list", "repaired", {"tool_calls_json": '{"name": "search"}'}),
            ("a content is NULL", "imported", {"content": None}),
            ("a content holds U+0000", "imported", {"content": "zero\x00byte"}),
            ("tokens are no number", "repaired", {"token_count": "many"}),
            ("tokens are below 0", "repaired", {"token_count": -1}),
            ("a message has no time", "repaired", {"created_at": None}),
        )
        for what, outcome, values in flaws:
            given: dict[str, object] = {"session_id": session_id, "role": "user", "content": what}
            self.insert("messages", **{**given, "created_at": self.later(), **values})
            self.flaw(what, "messages", outcome)

    def flawed_tasks(self, session_id: str) -> None:
        flaws: tuple[tuple[str, dict[str, object]], ...] = (
            ("a task's session is gone", {"session_id": "gone"}),
            ("a task's status is unknown", {"status": "zombie"}),
            ("a task's status is missing", {"status": None}),
            ("a payload is no JSON", {"payload_json": '{"max_length": 2'}),
            ("a task has no type", {"type": None}),
            ("retries are below 0", {"max_retries": -3}),
            ("a start is no time", {"started_at": "soon"}),
        )
        for what, values in flaws:
            given: dict[str, Any] = {"session_id": session_id, "status": "paused", **values}
            self.task(given.pop("session_id"), given.pop("status"), **given)
            self.flaw(what, "tasks")
        self.task(session_id, "paused", id=None)
        self.flaw("a task has no key", "tasks", "set_aside")

    def flawed_tool_logs(self, session_id: str) -> None:
        flaws: tuple[tuple[str, Literal["repaired", "set_aside"], dict[str, object]], ...] = (
            ("a log's session is gone", "set_aside", {"session_id": "gone"}),
            ("a log's message is gone", "repaired", {"message_id": 99_999}),
            ("a log's message is another session's", "repaired", {"message_id": 1}),
            ("an input is no JSON", "repaired", {"input_json": "{"}),
            ("a tool has no name", "repaired", {"tool_name": None}),
            ("a call lasted less than nothing", "repaired", {"elapsed_ms": -1.0}),
            ("a success is no truth value", "repaired", {"success": 7}),
        )
        for what, outcome, values in flaws:
            given: dict[str, Any] = {"session_id": session_id, **values}
            self.tool_log(given.pop("session_id"), **given)
            self.flaw(what, "tool_calls", outcome)
