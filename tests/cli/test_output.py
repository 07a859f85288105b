"""What is printed: nothing that drives a terminal, no colour where nobody looks, and no trouble with whoever reads."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.cli import main
from agentos_store.cli.app import run

Run = Callable[..., Any]

CONTROL = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

HOSTILE = "[red]a[/red] [/] :smile: \x1b[31mb\x1b]0;c\x07 C:\\d\\[e] \x9b32mf\ng\u202eh\ti"
"""Rich's markup, the terminal's sequences in 7 and in 8 bits, a new line, and a change of direction."""

COMMANDS = (
    ("status",),
    ("tasks", "list"),
    ("audit", "verify"),
    ("db", "history"),
    ("db", "current"),
    ("db", "sql"),
    ("--help",),
    ("tasks", "list", "--json"),
)


@pytest.fixture
def hostile(filled: str) -> tuple[str, str]:
    """A store with texts that mean harm, and a task that has them."""
    with Store.open(filled) as store:
        project = store.projects.create(path="/x", name=HOSTILE)
        task = store.tasks.create(title=HOSTILE, project_id=project.id, metadata={"said": HOSTILE}, created_by=HOSTILE)
        store.lineage.record(task.task_id, kind="commit", ref_id=HOSTILE, phase=HOSTILE)
        store.tasks.transition(task.task_id, "pending", by=HOSTILE)
    return filled, task.task_id


def test_texts_are_shown_as_they_are_but_for_what_drives_a_terminal(cli: Run, hostile: tuple[str, str]) -> None:
    url, task_id = hostile
    for arguments in (
        ("tasks", "list"),
        ("tasks", "show", task_id),
        ("lineage", task_id),
        ("lineage", task_id, "--mermaid"),
        ("tasks", "show", task_id, "--json"),
        ("lineage", task_id, "--json"),
    ):
        done = cli("--url", url, *arguments)
        assert (done.code, done.err) == (0, "")
        assert not CONTROL.search(done.out), arguments
        if "--mermaid" not in arguments:
            assert "[red]a[/red] [/] :smile: " in done.out
    for arguments in (("tasks", "list"), ("tasks", "show", task_id), ("lineage", task_id)):
        assert "C:\\d\\[e]" in cli("--url", url, *arguments).out
    assert cli("--url", url, "tasks", "show", task_id, "--json").json["title"] == HOSTILE
    assert cli("--url", url, "lineage", task_id, "--json").json["nodes"][0]["label"] == HOSTILE


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_pipe_gets_no_control_sequences(cli: Run, filled: str, arguments: tuple[str, ...]) -> None:
    done = cli("--url", filled, *arguments)
    assert (done.code, done.err) == (0, "")
    assert not CONTROL.search(done.out)


@pytest.fixture
def on_terminal(start: Run, filled: str) -> Callable[..., str]:
    """Runs the program on a terminal of its own and gives what it wrote there."""

    def call(*arguments: str | Path, before: str = "") -> str:
        ours, theirs = pty.openpty()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        environment = {**os.environ, "TERM": "xterm-256color"}
        child = start("--url", filled, *arguments, before=before, env=environment, **streams)
        os.close(theirs)
        written = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):
            # Linux reports an error, and others an end, when the other side is closed.
            while part := terminal.read(4096):
                written += part
        assert child.wait() == 0
        return written.decode()

    return call


AGAIN_IN_BLACK = """
import os
from agentos_store.cli.app import run
os.environ["NO_COLOR"] = "1"
run(sys.argv[1:])
print("in black", flush=True)
del os.environ["NO_COLOR"]
"""


def test_a_terminal_gets_colours_unless_no_color_says_otherwise(on_terminal: Callable[..., str], filled: str) -> None:
    with Store.open(filled) as store:
        (link, *_) = store.lineage.iterate()
    coloured = re.compile("\x1b\\[[0-9;]*3[0-9]")
    black, _, bright = on_terminal("lineage", link.task_id, before=f"import sys{AGAIN_IN_BLACK}").partition("in black")
    assert link.task_id in black
    assert not coloured.search(black)
    assert coloured.search(bright)


def test_a_terminal_sees_the_progress_of_an_import_and_a_log_does_not(
    on_terminal: Callable[..., str], filled: str, cli: Run, small_registry: Path
) -> None:
    shown = on_terminal("import", "agentos", small_registry)
    assert re.search(r"audits\s+━", re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown))
    assert cli("--url", filled, "import", "agentos", small_registry).err == ""


def test_a_terminal_of_another_encoding_ends_no_command(cli: Run, program: Run, filled: str) -> None:
    as_json = ["--url", filled, "tasks", "list", "--json"]
    before = f"from agentos_store.cli.app import run\nrun({as_json!r})\nprint('then')"
    done = program("--url", filled, "tasks", "list", before=before, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.code, done.err) == (0, "")
    found, _, table = done.out.partition("then\n")
    assert "\\u6570\\u636e" in table
    assert json.loads(found) == cli(*as_json).json


def test_a_reader_that_goes_away_is_no_error_worth_a_word(
    start: Run, filled: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    child = start("--url", filled, "tasks", "list")
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == ""
    assert child.wait() == 141
    for arguments in (("tasks", "list", "--json"), ("db", "sql"), ("export",)):
        theirs, ours = os.pipe()
        os.close(theirs)
        output = os.fdopen(ours, "w", encoding="utf-8")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", output)
            assert run(["--url", filled, *arguments]) == 141
        with suppress(BrokenPipeError):
            output.close()
    assert capsys.readouterr().err == ""


CLOSED = (
    (("db", "current"), "stdout", 0),
    (("nothing",), "stderr", 2),
    (("db", "downgrade", "base"), "stdin", 130),
)


@pytest.mark.parametrize(("arguments", "name", "code"), CLOSED)
def test_a_stream_that_whoever_started_it_has_closed_is_no_error(
    filled: str, arguments: tuple[str, ...], name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["agentos-store", "--url", filled, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    getattr(sys, name).close()
    assert ended.value.code == code


def test_errors_that_nobody_can_write_change_no_exit_code(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", full)
    assert run(["--url", filled, "nothing"]) == 2
    with suppress(OSError):
        full.close()


def test_a_reader_of_errors_that_goes_away_ends_no_import(start: Run, sqlite_url: str, small_registry: Path) -> None:
    child = start("--url", sqlite_url, "import", "agentos", small_registry, stdout=subprocess.DEVNULL)
    child.stderr.close()
    assert child.wait() == 0
    with Store.open(sqlite_url) as store:
        assert store.audits.count() > 0
