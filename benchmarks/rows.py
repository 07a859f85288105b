"""What every contestant writes: the content of the rows, and the audit chain written out by hand."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Iterator

PAYLOAD = {"tool": "shell", "command": ["make", "test"], "exit_code": 0, "seconds": 12.5, "summary": "全部通过"}
EVENT = "tool.called"
STEP = "task.transition"
TITLE = "Refactor the parser"
METADATA = {"repository": "core", "labels": ["parser", "重构"]}

CYCLE = (("pending", "running"), ("running", "paused"), ("paused", "pending"))
"""Steps that lead a task back to where it began."""

PAGE = 50
DEEP_PAGE = 200
LISTED = "pending"
"""The status whose tasks are listed."""

GENESIS = "0" * 64


def steps() -> Iterator[tuple[str, str]]:
    """Yield the steps of the cycle, over and over."""
    return itertools.cycle(CYCLE)


def numbered_keys(prefix: str) -> Iterator[str]:
    """Yield keys as long as a ULID, each greater than the one before."""
    return (f"{prefix}{number:0{26 - len(prefix)}d}" for number in itertools.count())


def now() -> dt.datetime:
    """Return the time in UTC."""
    return dt.datetime.now(dt.UTC)


def written(moment: dt.datetime) -> str:
    """Return the time as SQLite stores it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compact(value: object) -> str:
    """Return the JSON text that is stored and hashed."""
    return _write(value)


# Kept, for ``json.dumps`` makes one at each call when it is told how to write.
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def content_hash(task_id: str, event_type: str, payload: str, created_at: str) -> str:
    """Return the hash of an entry's content."""
    fields = [task_id, None, "info", event_type, payload, None, None, None, None, created_at]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def chained(previous: str, content: str) -> str:
    """Return the hash that chains an entry to the previous one."""
    return hashlib.sha256((previous + content).encode()).hexdigest()
