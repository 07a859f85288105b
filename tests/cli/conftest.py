"""Two ways to run the program: in this process, which is fast, and as a process, where streams and signals matter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentos_store.cli.app import run
from agentos_store.testing.registries import make_registry

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "agentos-registry" / "registry-v25.sqlite"


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def assert_refused(self, code: int, *words: str) -> None:
        """One clear line, nothing else, and no secret."""
        assert (self.code, self.out) == (code, ""), self
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("error: "), self.err
        assert "Traceback" not in self.err
        assert "sekret" not in self.err
        for word in words:
            assert word in self.err, self.err


Run = Callable[..., Result]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _no_terminal_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest-xdist sets the first in its workers.
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process."""
    # Typer puts a hook of its own there.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def start() -> Start:
    """Starts the program as a process, after some statements of Python."""

    def call(*arguments: str | Path, before: str = "", **options: Any) -> subprocess.Popen[str]:
        code = f"{before}\nfrom agentos_store.cli import main\nmain()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, text=True, encoding="utf-8", **streams)

    return call


@pytest.fixture
def program(start: Start) -> Run:
    """Runs the program to its end as a process of its own."""

    def call(*arguments: str | Path, before: str = "", given: str = "", **options: Any) -> Result:
        child = start(*arguments, before=before, stdin=subprocess.PIPE, **options)
        out, err = child.communicate(given)
        return Result(child.returncode, out, err)

    return call


@pytest.fixture(scope="session")
def small_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made registry with every flaw."""
    path = tmp_path_factory.mktemp("small") / "registry.sqlite"
    make_registry(path, tasks=24)
    return path


@pytest.fixture(scope="session")
def registry(small_registry: Path) -> Path:
    """The sample, or where there is none the made one."""
    return SAMPLE if SAMPLE.exists() else small_registry


@pytest.fixture(scope="session")
def filled_template(sqlite_template: Path, small_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with the made registry in it, only ever copied."""
    from agentos_store import Store
    from agentos_store.importers.agentos.load import import_registry

    path = Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("filled") / "store.sqlite"))
    with Store.open(f"sqlite:///{path}") as store:
        import_registry(store, small_registry)
    return path


@pytest.fixture
def filled(filled_template: Path, tmp_path: Path) -> str:
    """The URL of an SQLite store with the made registry in it."""
    return f"sqlite:///{shutil.copy(filled_template, tmp_path / 'store.sqlite')}"
