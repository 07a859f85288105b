"""What all commands have in common: JSON, dry runs, one word for one thing, completion, and a quick start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer.main

from agentos_store import Store
from agentos_store.cli.app import Application, app, run

Run = Callable[..., Any]


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its name with those of its groups."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from leaves(child, f"{path} {name}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))

WITHOUT_JSON = {
    "db sql": "what it prints is SQL",
    "db grants": "what it prints is SQL",
    "db config": "what it prints is a path, to be put into another command",
    "demo": "what it prints is what other commands print",
}

REMOVES = {"copy", "db downgrade", "forget", "kb add", "kb remove", "prune", "restore"}
"""Commands that remove something, or may; those that are here already are looked at."""

WITHOUT_DRY_RUN = {
    "backup": "--replace is about one file, which is named",
}

MEANT = {"--yes", "--prune", "--replace", "--force", "--remove", "--delete"}
"""Options by which something is removed, and so a sign that the command should be among them."""

OTHER_WORDS = {
    **dict.fromkeys(("--max", "--count", "--top", "--number"), "--limit"),
    **dict.fromkeys(("--confirm", "--force", "--assume-yes", "--no-input"), "--yes"),
    **dict.fromkeys(("--dryrun", "--simulate", "--check-only"), "--dry-run"),
    **dict.fromkeys(("--age", "--older", "--min-age"), "--older-than"),
    **dict.fromkeys(("--since", "--from"), "--after"),
    **dict.fromkeys(("--until", "--to"), "--before"),
    **dict.fromkeys(("--as-json", "--output-format"), "--json"),
}
"""Words that nobody has to guess, because another one stands for the thing."""

HEAVY = ("sqlalchemy", "alembic", "psycopg", "asyncio")


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def test_every_command_speaks_json() -> None:
    assert {name for name, command in COMMANDS.items() if "--json" not in options(command)} <= WITHOUT_JSON.keys()


def test_every_command_that_removes_something_can_tell_first_what_that_would_be() -> None:
    removing = {name for name, command in COMMANDS.items() if name in REMOVES or options(command) & MEANT}
    assert removing >= {"db downgrade", "kb add", "kb remove", "prune"}
    assert {name for name in removing if "--dry-run" not in options(COMMANDS[name])} <= WITHOUT_DRY_RUN.keys()


def test_one_thing_has_one_word_and_one_word_means_one_thing() -> None:
    kinds: dict[str, set[bool]] = defaultdict(set)
    for name, command in COMMANDS.items():
        for option in options(command):
            assert option not in OTHER_WORDS, f"{name}: {option} is called {OTHER_WORDS[option]}"
        for parameter in command.params:
            for option in parameter.opts:
                kinds[option].add(bool(getattr(parameter, "is_flag", False)))
    assert {option: found for option, found in kinds.items() if option.startswith("--") and len(found) > 1} == {}


def test_every_command_and_every_option_says_what_it_is_for() -> None:
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name}: {parameter.name}"


def test_the_list_of_commands_fits_a_terminal(cli: Run) -> None:
    listed = cli("--help").out
    for name, later in Application.later.items():
        assert re.search(rf"^  {name} +{re.escape(later.help)}$", listed, re.MULTILINE), name
    assert max(map(len, listed.splitlines())) <= 80


def test_a_reader_of_help_that_goes_away_is_no_error(start: Run) -> None:
    child = start()
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == ""
    assert child.wait() == 141


def test_an_option_for_all_commands_tells_where_it_stands(cli: Run, filled: str) -> None:
    cli("status", "--url", filled).assert_refused(2, "it stands before the command")


def asked(shell: str, line: str) -> dict[str, str]:
    """Return what a shell says when it asks to complete the last word of the line."""
    return {
        "_AGENTOS_STORE_COMPLETE": f"complete_{shell}",
        # Bash gives the words and the number of the last, the others the line.
        "COMP_WORDS": line.replace(" ", "\n"),
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_of_commands_are_completed_without_waiting_for_a_library(shell: str) -> None:
    code = f"""
import sys
from agentos_store.cli.app import run
try:
    run([])
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""
    environment = {**os.environ, **asked(shell, "agentos-store ta")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert ("tasks" in done.stdout, "tail" in done.stdout, "status" in done.stdout) == (True, True, False)
    assert done.stderr == "\n"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tasks li", "list"),
        ("tasks list --pro", "--project"),
        ("db downgrade 0001", "0001_projects"),
        ("db downgrade ba", "base"),
    ],
)
def test_commands_options_and_revisions_are_completed(
    line: str, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in asked("bash", f"agentos-store {line}").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        run([])
    assert (ended.value.code, capsys.readouterr().out.split()) == (0, [found])


def test_the_version_waits_for_no_library() -> None:
    code = f"""
import sys
from agentos_store.cli.app import run
code = run(["--version"])
print(code, *(name for name in {HEAVY} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[1:] == ["0"]


@pytest.mark.parametrize("columns", ["20", "40", "79"])
def test_a_narrow_terminal_gets_every_key_whole(
    cli: Run, filled: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with Store.open(filled) as store:
        keys = [task.task_id for task in store.tasks.list(limit=5, order="-created_at").items]
    for arguments in (("tasks", "list", "--limit", "5"), ("inbox", "list"), ("verdicts", "list"), ("status",)):
        done = cli("--url", filled, *arguments)
        assert (done.code, done.err) == (0, "")
        if arguments[0] == "tasks":
            assert [key for key in keys if key not in done.out] == []


@pytest.mark.parametrize("columns", ["0", "-1", "wide", ""])
def test_columns_that_are_no_number_of_columns_are_no_reason_to_print_nothing(
    cli: Run, filled: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = cli("--url", filled, "tasks", "list").out
    monkeypatch.setenv("COLUMNS", columns)
    assert cli("--url", filled, "tasks", "list").out == wide


def test_force_color_colours_a_pipe_unless_no_color_says_otherwise(
    cli: Run, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = cli("--url", filled, "tasks", "list").out
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in cli("--url", filled, "tasks", "list").out
    for arguments in (("tasks", "list", "--json"), ("--help",), ("tasks", "--help")):
        assert "\x1b" not in cli("--url", filled, *arguments).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli("--url", filled, "tasks", "list").out == plain


HEARS_SIGINT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
"""Whoever runs the tests in the background has it ignored, and a child inherits that."""


def test_following_events_ends_at_an_interrupt_with_one_line(start: Run, filled: str) -> None:
    with Store.open(filled) as store:
        store.events.log("happened")
        child = start("--url", filled, "tail", "--follow", "--json", before=HEARS_SIGINT)
        assert json.loads(child.stdout.readline())["event_type"] == "happened"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert (child.returncode, out) == (130, "")
    assert err == "interrupted: what was committed stays; the command can be repeated\n"
