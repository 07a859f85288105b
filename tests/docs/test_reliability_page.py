"""The page about reliability, the list of long forms and the tests agree with each other."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.soak import ROOT, WORKS, main

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
RIGS = [line for line in PAGE.splitlines() if re.match(r"\| .*`tests/.*\|.*\|.*\|.*\|", line)]

OF_THE_PLACE = re.compile(r"AGENTOS_STORE_(TEST_(ROLE|THROUGH|POSTGRES_URL)|COMPLETE)")
"""Where tests run, and not how long."""


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("rig", RIGS)
def test_each_test_that_a_rig_names_is_in_one_of_its_files(rig: str) -> None:
    files = re.findall(r"`(tests/[\w/]+\.py)`", rig)
    there = {test for file in files for test in names_in(ROOT / file)}
    assert files
    assert set(re.findall(r"`(test_\w+)`", rig)) <= there


def test_each_long_form_that_a_rig_names_is_run_by_the_soak() -> None:
    sizes = {(path, name) for path, variables in WORKS for name in variables}
    assert len(RIGS) > 15
    for rig in RIGS:
        files = re.findall(r"`(tests/[\w/]+\.py)`", rig)
        for name in re.findall(r"\(`([A-Z_]+)`\)", rig):
            assert any((file, name) in sizes for file in files), rig


def test_every_variable_that_makes_a_test_longer_is_set_by_the_soak() -> None:
    found = {
        (str(path.relative_to(ROOT)), variable)
        for path in (ROOT / "tests").rglob("test_*.py")
        for variable in re.findall(r'"(AGENTOS_STORE_[A-Z_]+)"', path.read_text(encoding="utf-8"))
        if not OF_THE_PLACE.fullmatch(variable)
    }
    run = {(path, f"AGENTOS_STORE_{name}") for path, variables in WORKS for name in variables}
    assert found == run


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_the_soak_cannot_run_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / "there is no such program"))
    monkeypatch.setattr(sys, "argv", ["soak", "--at-once", "0"])
    assert main() == 1
    assert capsys.readouterr().out == f"round 1: {WORKS[0][0]} FAILED\n"


def test_every_file_of_the_soak_exists() -> None:
    assert not [path for path, _ in WORKS if not (ROOT / path).exists()]
