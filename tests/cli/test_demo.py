"""The demo shows the main job with what every installation has, and keeps its hands off other people's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

RUNTIME_ONLY = """
import re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name):
    return re.sub("[-_.]+", "-", re.match("[A-Za-z0-9._-]+", name)[0]).lower()

needed, waiting = set(), ["agentos-store"]
while waiting:
    name = waiting.pop()
    if name in needed:
        continue
    needed.add(name)
    try:
        waiting += [plain(each) for each in requires(name) or () if "extra ==" not in each]
    except PackageNotFoundError:
        pass
needed |= {"psycopg-binary"}
for module, distributions in packages_distributions().items():
    if not needed & {plain(each) for each in distributions}:
        sys.modules[module] = None
assert sys.modules["pytest"] is None
"""


def test_it_works_twice_in_one_folder_and_with_the_dependencies_of_the_wheel_alone(
    program: Run, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = program("demo", before=RUNTIME_ONLY, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    for done in (alone, cli("demo")):
        assert (done.code, done.err) == (0, "")
        assert done.out.count("$ agentos-store --url sqlite:///demo/store.sqlite") == 9
        assert "all whole" in done.out
    # What it printed can be typed.
    assert cli("--url", "sqlite:///demo/store.sqlite", "audit", "verify").code == 0


def test_a_folder_of_any_name_keeps_other_files_that_are_in_it(cli: Run, tmp_path: Path) -> None:
    folder = tmp_path / "of course" / "a?b 50%25 c#d 数据 库 [red]"
    folder.mkdir(parents=True)
    assert cli("demo", "--folder", folder).code == 0
    assert (folder / "store.sqlite").is_file()
    note = folder / "note.txt"
    note.write_text("mine")
    assert cli("demo", "--folder", folder).code == 0
    assert note.read_text() == "mine"


@pytest.mark.parametrize("name", ["file", "folder"])
def test_it_refuses_what_it_did_not_make(cli: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "store.sqlite").write_text("mine")
    cli("demo", "--folder", tmp_path / name).assert_refused(4, "was not made by the demo")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "store.sqlite").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(cli: Run) -> None:
    cli("demo", "--folder", "/proc/nowhere/demo").assert_refused(7, "/proc/nowhere")
