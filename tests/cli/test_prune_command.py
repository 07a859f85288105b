"""``agentos-store prune``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from agentos_store import Store
from agentos_store.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(store: Store, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a database with three completed tasks and one that waits."""
    for number in range(3):
        task = store.tasks.create(title=f"t{number}", enqueue=True)
        store.tasks.transition(task.task_id, "running")
        store.tasks.transition(task.task_id, "completed")
    store.tasks.create(title="waits", enqueue=True)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentos-store", "--url", url, "prune", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, printed.out, printed.err

    return call


def test_a_dry_run_says_what_would_go(run: Run, store: Store) -> None:
    code, out, err = run("tasks", "--older-than", "0s", "--dry-run", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tables"] == {"tasks": {"rows": 3, "steps": 0, "longest_seconds": 0.0}}
    assert store.tasks.count() == 4


def test_what_is_old_goes_and_the_run_is_named(run: Run, store: Store) -> None:
    code, out, _ = run("tasks", "--older-than", "0s", "--keep", "1", "--state", "completed")
    assert code == 0
    assert "tasks (completed)" in out
    assert "noted as maintenance run" in out
    assert store.tasks.count() == 2
    assert run("tasks", "--older-than", "30d")[0] == 0
    assert store.tasks.count() == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks"],
        ["tasks", "--older-than", "ten days"],
        ["tasks", "--older-than", "-1d"],
        ["tasks", "--older-than", "1d", "--state", "running"],
        ["users", "--older-than", "1d"],
        ["task_audits", "--older-than", "0s"],
    ],
)
def test_what_makes_no_sense_or_needs_a_word_is_refused(run: Run, store: Store, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    assert store.tasks.count() == 4
