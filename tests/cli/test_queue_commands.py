from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from agentos_store import Store

Run = Callable[..., Any]


def test_the_queue_is_shown_and_lapsed_tasks_are_given_back(cli: Run, url: str) -> None:
    with Store.open(url) as store:
        for key in ("a", "b", "c"):
            store.tasks.create(title="t", task_id=key, enqueue=True)
        store.tasks.add_dependency("c", "b")
        store.tasks.claim(by="w", lease=dt.timedelta(microseconds=1))
    at = ("--url", url)
    shown = cli(*at, "tasks", "queue")
    assert (shown.code, shown.err) == (0, "")
    assert "1 of them lapsed" in shown.out
    assert "the oldest is ready since" in shown.out
    stats = cli(*at, "tasks", "queue", "--json").json
    assert {name: stats[name] for name in ("pending", "ready", "delayed", "blocked", "running", "lapsed")} == {
        "pending": 2,
        "ready": 1,
        "delayed": 0,
        "blocked": 1,
        "running": 1,
        "lapsed": 1,
    }
    assert cli(*at, "status", "--json").json["queue"]["lapsed"] == 1
    assert "Queue" in cli(*at, "status").out
    assert cli(*at, "tasks", "reclaim", "--json").json == {"reclaimed": 1}
    assert "0 given back" in cli(*at, "tasks", "reclaim", "--limit", "5").out
    cli(*at, "tasks", "reclaim", "--limit", "0").assert_refused(4, "limit")


def test_an_empty_queue_has_nothing_ready(cli: Run, url: str) -> None:
    assert "nothing is ready" in cli("--url", url, "tasks", "queue").out
    assert cli("--url", url, "tasks", "queue", "--json").json["oldest_ready_age"] is None
