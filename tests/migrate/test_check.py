from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentos_store.engine.version import HEAD
from agentos_store.migrate.revisions import known, scripts
from agentos_store.testing import check

Revise = Callable[..., Path]


def test_the_revisions_are_one_chain_that_ends_where_the_code_is() -> None:
    directory = check.open_scripts(scripts())
    assert directory.get_heads() == [HEAD]
    assert known()[-1] == HEAD
    assert [*check.check_one_head(directory), *check.check_chain(directory), *check.check_texts(directory)] == []


def test_the_command_says_what_it_checked() -> None:
    # On PostgreSQL it starts a server of its own, which the tests of drift need not.
    done = subprocess.run(
        [sys.executable, "-m", "agentos_store.testing.check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(check.__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(("ok: ", "not checked: no drift on PostgreSQL")) for line in lines)


def test_a_head_that_the_code_does_not_know_is_found(revise: Revise) -> None:
    directory = check.open_scripts(revise("9999_more", upgrade="pass"))
    assert list(check.check_one_head(directory)) == [
        f"the newest revision is 9999_more, but engine/version.py says {HEAD}"
    ]


def test_a_second_head_is_found(revise: Revise) -> None:
    folder = revise("9999_more", upgrade="pass")
    change(folder, "9999_more", f'down_revision = "{HEAD}"', f'down_revision = "{known()[0]}"')
    directory = check.open_scripts(folder)
    assert "there is not one head" in next(check.check_one_head(directory))
    assert list(check.check_chain(directory)) == [f"9999_more follows {known()[0]}, not {HEAD}"]


def test_a_file_under_another_name_than_its_revision_is_found(revise: Revise) -> None:
    folder = revise("9999_more", upgrade="pass")
    (folder / "versions" / "9999_more.py").rename(folder / "versions" / "9999_other.py")
    assert list(check.check_chain(check.open_scripts(folder))) == ["9999_other.py holds revision 9999_more"]


@pytest.mark.parametrize(
    ("upgrade", "rewrites", "found"),
    [
        ("from agentos_store import base", (), "imports from the package"),
        ('op.rebuild_table("tasks", None)', (), "without REWRITES"),
        ("pass", ("sideways",), "as a tuple"),
    ],
)
def test_a_revision_that_would_not_stay_what_it_is_is_found(
    revise: Revise, upgrade: str, rewrites: tuple[str, ...], found: str
) -> None:
    (finding,) = check.check_texts(check.open_scripts(revise("9999_more", upgrade=upgrade, rewrites=rewrites)))
    assert found in finding


def test_a_finding_makes_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "HEAD", "0000_nothing")
    monkeypatch.setattr(check, "check_sqlite", lambda: iter(()))
    monkeypatch.setattr(check, "check_postgresql", lambda: iter(()))
    assert check.main() == 1
    assert "wrong: one head" in capsys.readouterr().out


def change(folder: Path, revision: str, old: str, new: str) -> None:
    path = folder / "versions" / f"{revision}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
