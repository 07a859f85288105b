"""The documentation says what the code does: its examples run, its commands exist, its tables are complete."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from agentos_store.base import Base
from agentos_store.cli import exits
from agentos_store.cli.app import app
from agentos_store.models import metadata
from agentos_store.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
TEXTS = [*PAGES, ROOT / "CHANGELOG.md"]
FORBIDDEN = ("/work/", "shared/", "issue #")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
COMMAND = re.compile(r"agentos-store((?:[ \t]+[^\s|&;)`>]+)*)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return [found[2] for found in FENCE.finditer(path.read_text(encoding="utf-8")) if found[1] == language]


def without_blocks(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def commands(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield every call of our command line, and whether it stands in a console block and so must be complete."""
    lines = [(line, True) for block in blocks(path, "console") for line in block.splitlines() if line[:2] == "$ "]
    lines += [(line, False) for line in re.findall(r"`(agentos-store[^`]*)`", without_blocks(path))]
    for line, complete in lines:
        for found in COMMAND.finditer(line.partition(" #")[0]):
            if "…" not in found[0]:
                yield found[0].rstrip('"'), complete


def parse(arguments: list[str], *, complete: bool) -> None:
    """Let Typer parse a command without running it; what it does not know, or what a complete one lacks, raises."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    name = "agentos-store"
    while hasattr(command, "resolve_command") and (arguments or complete):
        context = command.make_context(name, list(arguments), parent=context)
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
    # Running text may name a command without its arguments.
    command.make_context(name, list(arguments), parent=context, resilient_parsing=not complete)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_examples_run_in_order_on_a_fresh_database(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for number, code in enumerate(blocks(page, "python"), start=1):
        exec(compile(code, f"{name_of(page)}, block {number}", "exec"), names)
    assert (tmp_path / "store" / "registry.sqlite").exists()


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_commands_that_are_shown_exist_with_their_options(page: Path) -> None:
    for command, complete in commands(page):
        parse(shlex.split(command)[1:], complete=complete)


def test_every_command_is_documented_with_every_option() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    documented: dict[str, str] = {}
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        documented[title.strip().strip("`")] = body

    def check(command: Any, path: str) -> None:
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help" and "completion" not in option:
                    assert f"`{option}" in documented[path], f"{path} {option}"
        for name, child in getattr(command, "commands", {}).items():
            if getattr(child, "commands", None):
                for grandchild in child.commands:
                    check(child.commands[grandchild], f"{path} {name} {grandchild}")
            else:
                check(child, f"{path} {name}")

    check(typer.main.get_command(app), "agentos-store")


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_relative_links_point_to_files_and_headings_that_exist(page: Path) -> None:
    for target in LINK.findall(without_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if heading:
            headings = [anchor(found) for found in HEADING.findall(without_blocks(linked))]
            assert heading in headings, target


def test_test_files_that_are_named_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`(tests/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{name_of(page)}: {name}"


def test_the_diagram_is_what_the_models_give() -> None:
    page = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "diagram.py"))["with_diagram"](page) == page, "run docs/diagram.py"


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_every_column_of_a_table_is_described_in_its_section(table: str) -> None:
    page = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(f"\n### `{table}`\n")
    section = re.split(r"^#{2,3} ", rest, flags=re.MULTILINE)[0]
    described = {
        column for line in section.splitlines() for column in re.findall(r"`(\w+)`", "|".join(line.split("|")[:2]))
    }
    missing = [column.name for column in metadata.tables[table].columns if column.name not in described]
    assert not missing


def test_every_model_belongs_to_a_table_of_the_metadata() -> None:
    assert {model.table().name for model in Base.__subclasses__()} == set(metadata.tables)


def test_every_setting_has_its_variable_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    for field in Settings.model_fields:
        variable = PREFIX + ("SCHEMA" if field == "schema_name" else field.upper())
        assert f"| `{variable}` |" in guide


def test_every_variable_that_is_named_is_a_setting() -> None:
    known = {PREFIX + ("SCHEMA" if field == "schema_name" else field.upper()) for field in Settings.model_fields}
    for page in TEXTS:
        for variable in re.findall(r"\bDATABASE_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")):
            assert variable in known, f"{name_of(page)}: {variable}"


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    named = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    for code in {0, 2, 130, *named, *(code for _, code in exits._CODES)}:
        assert f"| {code} |" in page


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_the_documentation_speaks_of_the_project_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8").lower()
    assert [word for word in FORBIDDEN if word in text] == []
