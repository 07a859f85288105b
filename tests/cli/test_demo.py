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
    program: Run, tmp_path: Path
) -> None:
    for _ in range(2):
        done = program("demo", before=RUNTIME_ONLY, cwd=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert done.out.count("$ agentos-store --url sqlite:///demo/store.sqlite") == 9
        assert "all whole" in done.out
    # What it printed can be typed.
    assert program("--url", "sqlite:///demo/store.sqlite", "audit", "verify", cwd=tmp_path).code == 0


def test_it_leaves_other_files_in_its_folder_alone(cli: Run, tmp_path: Path) -> None:
    folder = tmp_path / "of course"
    folder.mkdir()
    assert cli("demo", "--folder", folder).code == 0
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


@pytest.mark.parametrize("name", ["a?b", "50%25", "a#b", "数据 库", "[red]"])
def test_a_folder_may_have_any_name(cli: Run, tmp_path: Path, name: str) -> None:
    assert cli("demo", "--folder", tmp_path / name).code == 0
    assert (tmp_path / name / "store.sqlite").is_file()
