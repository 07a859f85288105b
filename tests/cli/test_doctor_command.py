"""``agentos-store doctor``: what it prints, and what a script can tell from its exit code."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store

Run = Callable[..., Any]


@pytest.fixture
def path(sqlite_template: Path, sqlite_url: str) -> Path:
    """A migrated file that nobody has open."""
    found = Path(sqlite_url.removeprefix("sqlite:///"))
    found.write_bytes(sqlite_template.read_bytes())
    found.chmod(0o600)
    return found


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_a_healthy_file_is_exit_code_0_and_notes_are_told(cli: Run, path: Path) -> None:
    result = cli("--url", f"sqlite:///{path}", "doctor", "--deep")
    assert (result.code, result.err) == (0, "")
    assert "0 errors, 0 warnings" in result.out
    assert str(path) in result.out


def test_a_warning_is_exit_code_8_with_its_meaning_and_remedy(cli: Run, path: Path) -> None:
    path.chmod(0o644)
    result = cli("--url", f"sqlite:///{path}", "doctor")
    assert result.code == 8
    assert "warning  file-readable: registry.sqlite (644)" in result.out
    assert "→ Take the rights away: `chmod o-rwx`" in result.out
    assert "0 errors, 1 warning" in result.out


def test_an_error_is_exit_code_1_and_json_says_it_all(cli: Run, path: Path) -> None:
    path.chmod(0o644)
    change(path, "UPDATE agentos_store_version SET revision = '9999_later'")
    result = cli("--url", f"sqlite:///{path}", "doctor", "--json")
    assert (result.code, result.err) == (1, "")
    found = result.json
    assert (found["ok"], found["worst"], found["deep"], found["database"]) == (False, "error", False, str(path))
    assert found["checks"] > 0
    assert [each["code"] for each in found["findings"]][:2] == ["revision-foreign", "file-readable"]
    for each in found["findings"]:
        assert each.keys() == {"code", "severity", "found", "meaning", "remedy"}
        assert all(each.values())


def test_a_file_that_is_not_there_is_exit_code_3_and_is_not_made(cli: Run, tmp_path: Path) -> None:
    cli("--url", f"sqlite:///{tmp_path}/nowhere.sqlite", "doctor").assert_refused(3, "nowhere.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_diagnosed_without_its_password(cli: Run, tmp_path: Path) -> None:
    result = cli("--url", f"postgresql://ann:sekret@/db?host={tmp_path}", "doctor", "--json")
    assert result.code == 1
    assert [each["code"] for each in result.json["findings"]] == ["cannot-open"]
    assert "sekret" not in result.out + result.err


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_postgresql_store_is_looked_at_through_the_command_too(cli: Run, url: str) -> None:
    with Store.open(url) as store:
        store.tasks.create(title="t")
        result = cli("--url", url, "doctor", "--json")
    assert not [each for each in result.json["findings"] if each["severity"] == "error"]
    assert result.json["server"].startswith("PostgreSQL ")
