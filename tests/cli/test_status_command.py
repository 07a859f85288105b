"""The page that one opens first: everything at a glance, on any terminal, and complete for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.cli.status import bar
from agentos_store.operations import status as operations_status
from agentos_store.operations.status import Status, read_status

Run = Callable[..., Any]


@pytest.fixture
def busy(url: str) -> str:
    """A store in which something of everything has happened today."""
    with Store.open(url) as store:
        session = store.sessions.create()
        store.messages.append(session.id, role="user", content="x", token_count=1234)
        store.agents.create("a", session_id=session.id)
        for number, state in enumerate(("completed", "failed", "failed")):
            store.tool_calls.record(tool_name="bash", agent_id="a", tool_call_id=f"c{number}", state=state)
        store.events.log(event_type="x", severity="error")
        task = store.tasks.create(title="x", enqueue=True)
        store.inbox.add(task_id=task.task_id, event_type="e")
    return url


def test_everything_is_on_the_page(cli: Run, busy: str) -> None:
    done = cli("--url", busy, "status")
    assert (done.code, done.err) == (0, "")
    today = dt.datetime.now(dt.UTC).date()
    for words in (
        *("revision", "size", "oldest pending task", "tables are empty", "Queue", "Inbox"),
        *("Failing tools", "last 24 hours", "67%", "Tokens by day (UTC)", f"{today}", "1,234"),
        "events in the last 24 hours: 1, of which 1 are errors",
    ):
        assert words in done.out, words
    found = cli("--url", busy, "status", "--json").json
    assert {*Status.__dataclass_fields__, "inbox", "queue"} == set(found)
    assert found["failing_tools"] == [{"tool_name": "bash", "calls": 3, "failures": 2}]
    assert found["tokens_by_day"][-1] == {"day": f"{today}", "tokens": 1234, "complete": True}
    assert len(found["tokens_by_day"]) == 14
    assert (found["events"]["count"], found["events"]["errors"], found["estimated"]) == (1, 1, [])


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_narrow_terminal_gets_narrow_lines_without_colours(
    cli: Run, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for columns in (40, 60, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = cli("--url", busy, "status")
        assert "\x1b" not in done.out
        charts = [line for line in done.out.splitlines() if "█" in line]
        assert len(charts) == 2
        assert all(len(line) <= columns for line in charts)
        assert all(line.count("█") <= 40 for line in charts)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_estimate_is_marked(cli: Run, busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(busy) as store:
        for _ in range(6):
            store.tasks.create(title="x")
    monkeypatch.setattr(operations_status, "read_status", partial(read_status, exact=5))
    done = cli("--url", busy, "status")
    assert "~7" in done.out
    assert "~6" in done.out
    assert cli("--url", busy, "status", "--json").json["estimated"] == ["tasks", "tasks.created"]


def test_a_bar_shows_whatever_is_not_nothing() -> None:
    assert [bar(number, 1000, 4) for number in (0, 1, 125, 500, 1000)] == ["", "▏", "▌", "██", "████"]
