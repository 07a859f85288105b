"""Small KODE JSONStore directories, as KODE leaves them on disk, for tests and for a first look at the importer.

The same arguments make the same files, but for their times of change.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

START: Final = 1_795_240_070_464
"""Milliseconds since 1970 at which the first agent was made: 2026-11-21T05:47:50.464Z."""

REVIEWER: Final = "agt-01KQ5V3S7JZQ8M2W9T4R6X1B0C"
FORK: Final = f"{REVIEWER}/fork-{START + 400}"
RUNNER: Final = "agt-01KQ5V3V9M2R6T8X4Z1C3E5G7J"
"""An agent whose conversation was compressed since its snapshot."""
KILLED: Final = "agt-01KQ5V3XBP4T8W0Z6C3E5G7J9M"
"""An agent that was killed: its last message is in the write-ahead log only."""
POOL: Final = "__pool_meta__"
API_KEY: Final = "sk-sample-NOT-A-REAL-KEY"


def make_kode_store(base: Path) -> dict[str, dict[str, int]]:
    """Make a directory of four agents; return how many there are of each kind, by agent."""
    base.mkdir(parents=True)
    _reviewer(base)
    _runner(base)
    _killed(base)
    ids = [REVIEWER, RUNNER]
    pool = {"agentIds": ids, "shutdownAt": iso(START + 9000), "version": "1.0.0"}
    write(base / POOL / "meta.json", {"agentId": POOL, "templateId": POOL, "runningAgents": pool})
    # KODE makes these when it looks for write-ahead logs.
    for part in ("runtime", "events"):
        (base / POOL / part).mkdir()
        (base / "empty-shell" / part).mkdir(parents=True)
    return {
        REVIEWER: {"messages": 6, "calls": 3, "documents": 1, "snapshots": 1, "lines": 5, "distinct": 4},
        FORK: {"messages": 4, "calls": 0, "documents": 0, "snapshots": 0, "lines": 0, "distinct": 0},
        RUNNER: {"messages": 3, "calls": 0, "documents": 4, "snapshots": 2, "lines": 0, "distinct": 0},
        KILLED: {"messages": 4, "calls": 0, "documents": 0, "snapshots": 0, "lines": 2, "distinct": 2},
    }


@dataclass(frozen=True, slots=True)
class Damage:
    """One kind of damage."""

    file: str
    """The file that it is done to, and that is reported."""
    kind: str
    """The kind of data under which it is reported."""
    reason: str
    """A part of the reason that is given."""
    change: Callable[[bytes], bytes]
    repaired: bool = False
    """Whether the data arrives all the same."""


DAMAGES: Final[Mapping[str, Damage]] = {
    "messages torn": Damage(
        f"{REVIEWER}/runtime/messages.json", "messages", "breaks off", lambda content: content[: len(content) // 2]
    ),
    "tool calls empty": Damage(f"{REVIEWER}/runtime/tool-calls.json", "tool_calls", "empty", lambda _: b""),
    "write-ahead log torn": Damage(
        f"{KILLED}/runtime/messages.wal",
        "messages",
        "messages.json counts",
        lambda content: content[:-9],
        repaired=True,
    ),
    "window of another encoding": Damage(
        f"{RUNNER}/history/windows/{START + 700}.json",
        "history_windows",
        "UTF-16",
        lambda content: content.decode().encode("utf-16"),
    ),
    "compression nested too deep": Damage(
        f"{RUNNER}/history/compressions/{START + 700}.json",
        "compressions",
        "nested too deep",
        lambda _: b'{"summary":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ),
    "snapshot with NaN": Damage(
        f"{REVIEWER}/snapshots/sfp-3.json",
        "snapshots",
        "NaN",
        lambda content: content.replace(b'"lastSfpIndex": 3', b'"lastSfpIndex": NaN'),
    ),
    "todos of zeros": Damage(f"{REVIEWER}/runtime/todos.json", "todos", "NUL", lambda content: b"\0" * len(content)),
    "info with a byte order mark": Damage(
        f"{RUNNER}/meta.json", "agents", "byte order mark", lambda content: b"\xef\xbb\xbf" + content, repaired=True
    ),
    "log with a torn line": Damage(f"{REVIEWER}/events/progress.log", "events", "torn", lambda content: content[:-20]),
    "log with zeros at its end": Damage(
        f"{REVIEWER}/events/monitor.log", "events", "NUL", lambda content: content + b"\0" * 5000, repaired=True
    ),
}
"""Each does harm to one file of a directory that ``make_kode_store`` made."""


def damage(base: Path, name: str) -> Damage:
    """Do the damage, and return what is to be said of it."""
    what = DAMAGES[name]
    file = base / what.file
    changed = what.change(file.read_bytes())
    file.write_bytes(changed)
    return what


def write(file: Path, value: object) -> None:
    """Write a file as KODE does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate has no UTF-8; JSON.stringify escapes it in the same way.
    file.write_bytes(json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def iso(milliseconds: int) -> str:
    """Return the ISO text that KODE writes for a time after the first agent's."""
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def said(words: str, role: str = "user") -> dict[str, Any]:
    """Return a message of one text."""
    return {"role": role, "content": [{"type": "text", "text": words}]}


def meta(agent_id: str, made: int, messages: int, **more: Any) -> dict[str, Any]:
    """Return what KODE writes about an agent."""
    lineage = agent_id.split("/")[:-1]
    inner = {
        "agentId": agent_id,
        "modelConfig": {"provider": "anthropic", "model": "claude-sonnet-4-5", "apiKey": API_KEY, "maxTokens": 900},
        "permission": {"mode": "auto"},
        "createdAt": iso(made),
        "updatedAt": iso(made + 300),
        "metadata": {"userId": "user-42", "说明": "测试"},
        "lineage": lineage,
        "breakpoint": "READY",
    }
    return {
        "agentId": agent_id,
        "templateId": "code-reviewer",
        "createdAt": iso(made),
        "lineage": lineage,
        "configVersion": "v2.7.0",
        "messageCount": messages,
        "lastSfpIndex": messages - 1,
        "lastBookmark": {"seq": 7, "timestamp": made + 200},
        "metadata": inner,
        **more,
    }


def call(identifier: str, name: str, state: str, at: int, **more: Any) -> dict[str, Any]:
    """Return a tool call record."""
    return {
        "id": identifier,
        "name": name,
        "input": {"path": "app.py"},
        "state": state,
        "approval": {"required": False},
        "createdAt": at,
        "updatedAt": at + 5,
        "auditTrail": [{"state": "PENDING", "timestamp": at}, {"state": state, "timestamp": at + 5, "note": "end"}],
        **more,
    }


def event(channel: str, number: int, at: int, **more: Any) -> str:
    """Return a line of an event log, with its end."""
    bookmark = {"seq": number, "timestamp": at}
    line = {"cursor": number, "bookmark": bookmark, "event": {"channel": channel, "bookmark": bookmark, **more}}
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n"


def _reviewer(base: Path) -> None:
    folder = base / REVIEWER
    used = [{"type": "tool_use", "id": name, "name": "fs_read", "input": {"path": "app.py"}} for name in ("t1", "t2")]
    answers = [{"type": "tool_result", "tool_use_id": name, "content": {"ok": True}} for name in ("t1", "t2")]
    messages = [
        said("Please review app.py. 请检查"),
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Let me look."}, *used],
            "metadata": {"transport": "provider"},
        },
        {"role": "user", "content": answers},
        said("Fixed 🙂", "assistant"),
        said("Thanks"),
        said("\0 and \ud83d are kept; -0.0 too", "assistant") | {"metadata": {"tokens": -0.0}},
    ]
    write(folder / "runtime" / "messages.json", messages)
    asked = {"required": True, "decision": "allow", "decidedBy": "api", "decidedAt": START + 90, "note": "safe"}
    calls = [
        call("t1", "fs_read", "COMPLETED", START + 50, result=0, startedAt=START + 51, durationMs=3),
        call("t2", "fs_write", "COMPLETED", START + 60, result=None, isError=False, approval=asked),
        call("t9", "bash_run", "APPROVAL_REQUIRED", START + 70, approval={"required": True}),
    ]
    write(folder / "runtime" / "tool-calls.json", calls)
    todos = [{"id": "T1", "title": "Add tests", "status": "pending"}]
    write(folder / "runtime" / "todos.json", {"todos": todos, "version": 1, "updatedAt": START + 80})
    write(
        folder / "snapshots" / "sfp-3.json",
        {
            "id": "sfp-3",
            "messages": messages[:4],
            "lastSfpIndex": 3,
            "lastBookmark": {"seq": 5, "timestamp": START + 95},
            "createdAt": iso(START + 95),
            "metadata": {"stepCount": 2},
        },
    )
    write(folder / "meta.json", meta(REVIEWER, START, 6))
    (folder / "events").mkdir()
    chunk = event("progress", 4, START + 10, type="text_chunk", delta="Let")
    done = event("progress", 5, START + 20, type="done")
    (folder / "events" / "progress.log").write_text(chunk + done + chunk, encoding="utf-8")
    changed = [event("monitor", number, START + 30, type="state_changed") for number in (0, 1)]
    (folder / "events" / "monitor.log").write_text("".join(changed), encoding="utf-8")
    forked = base / FORK
    write(forked / "runtime" / "messages.json", messages[:4])
    write(forked / "meta.json", meta(FORK, START + 400, 4))


def _runner(base: Path) -> None:
    folder = base / RUNNER
    before = [said("Question 0"), said("Answer 0", "assistant"), said("Question 1"), said("Answer 1", "assistant")]
    after = [
        said("<context-summary>Question 0</context-summary>", "system"),
        said("Question 2"),
        said("2", "assistant"),
    ]
    write(folder / "meta.json", meta(RUNNER, START + 600, 3))
    write(folder / "runtime" / "messages.json", after)
    at = START + 700
    window = {"id": f"window-{at}", "messages": before, "events": [], "stats": {"messageCount": 4}, "timestamp": at}
    write(folder / "history" / "windows" / f"{at}.json", window)
    record = {
        "id": f"comp-{at}",
        "windowId": f"window-{at}",
        "config": {},
        "summary": "…",
        "ratio": 0.6,
        "timestamp": at,
    }
    write(folder / "history" / "compressions" / f"{at}.json", record)
    recovered = folder / "history" / "recovered"
    recovered.mkdir()
    for number in (0, 1):
        head = f"# Recovered: /srv/app/README.md\n# Timestamp: {at + number}\n# Mtime: {at}.315\n\n"
        content = "# Demo\r\n\nunicode: 数据库 – ü – 🙂\n"
        name = f"_srv_app_README.md_{at + number}.txt"
        (recovered / name).write_text(head + content, encoding="utf-8", newline="")
    for name, messages, made in (("team/before", before, at - 50), ("after", after[:2], at + 50)):
        write(
            folder / "snapshots" / f"{name}.json",
            {
                "id": name,
                "messages": messages,
                "lastSfpIndex": len(messages) - 1,
                "createdAt": iso(made),
                "metadata": {"stepCount": 2},
            },
        )


def _killed(base: Path) -> None:
    folder = base / KILLED
    messages = [said("Look."), said("I look.", "assistant"), said("Restart."), said("Restarting.", "assistant")]
    write(folder / "meta.json", meta(KILLED, START + 800, 3))
    write(folder / "runtime" / "messages.json", messages[:3])
    write(folder / "runtime" / "messages.json.tmp", messages)
    ahead = json.dumps({"data": messages, "timestamp": START + 900}, separators=(",", ":"))
    (folder / "runtime" / "messages.wal").write_text(ahead, encoding="utf-8")
    (folder / "events").mkdir()
    lines = [event("progress", number, START + 810, type="text_chunk", delta=str(number)) for number in (4, 5)]
    (folder / "events" / "progress.log").write_text(lines[0], encoding="utf-8")
    (folder / "events" / "progress.wal").write_text("".join(lines), encoding="utf-8")
