"""``agentos-store forget``."""

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
    """Runs a command on a database with a person and an agent."""
    store.users.create(id="wanda", name="Wanda")
    store.sessions.create(user_id="wanda", id="s")
    store.messages.append("s", role="user", content="hello")
    store.agents.create("a")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentos-store", "--url", url, "forget", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, printed.out, printed.err

    return call


def test_a_dry_run_only_counts_and_the_answer_no_changes_nothing(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("user", "wanda", "--dry-run", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["tables"]["messages"] == {"removed": 1, "emptied": 0, "named": 0}
    assert (found["dry_run"], found["receipt"]) == (True, None)
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    code, out, err = run("user", "wanda")
    assert code != 0
    assert "messages" in out
    assert store.users.get("wanda").name == "Wanda"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_person_and_an_agent_are_forgotten_and_the_file_is_written_anew(run: Run, store: Store) -> None:
    code, out, _ = run("user", "wanda", "--yes", "--by", "officer", "--vacuum", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["tables"]["users"]["removed"], found["not_vacuumed"]) == (1, {})
    assert len(found["receipt"]) == 32
    code, out, _ = run("agent", "a", "--yes")
    assert code == 0
    assert "receipt" in out
    assert run("agent", "a", "--yes")[0] == 3
    assert not store.agents.exists("a", include_deleted=True)
