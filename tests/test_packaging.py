"""What is installed from the wheel works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from agentos_store.engine.version import HEAD
from agentos_store.migrate.revisions import known

CHECKOUT = Path(__file__).resolve().parents[1]

SCRIPT = """
import json, sys
import agentos_store
from agentos_store import Store, ensure_migrations
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.revisions import alembic_ini, known
from agentos_store.migrate.target import Target

url = sys.argv[1]
applied = [ensure_migrations(url), ensure_migrations(url)]
with Store.open(url) as store:
    task = store.tasks.create(title="From the wheel")
    title = store.tasks.get(task.task_id).title
drift = [str(difference) for difference in find_drift(Target.of(url), alone=True)]
print(json.dumps({"package": agentos_store.__file__, "ini": str(alembic_ini()), "known": known(),
                  "applied": applied, "title": title, "drift": drift}))
"""


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    # Nothing that points to the checkout may help.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=kept | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir")
    call(*build, directory, CHECKOUT, cwd=directory)
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel in it, and with this one's packages to depend on."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet")
    call(*pip, "--no-deps", "--no-index", wheel, cwd=directory)
    (site,) = directory.glob("lib/python*/site-packages")
    # A path that a .pth file names is searched, but the .pth files in it, an editable install's too, are not read.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python


def test_the_wheel_holds_the_revisions_and_nothing_compiled(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "agentos_store/alembic.ini" in names
    assert "agentos_store/migrations/env.py" in names
    assert {f"agentos_store/migrations/versions/{revision}.py" for revision in known()} <= set(names)
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    assert {name.split("/")[0].split("-")[0] for name in names} == {"agentos_store"}


def test_the_installed_wheel_migrates_and_works(python: Path, tmp_path: Path) -> None:
    found = json.loads(call(python, "-c", SCRIPT, f"sqlite:///{tmp_path}/registry.sqlite", cwd=tmp_path))
    environment = python.parents[1]
    assert Path(found["package"]).is_relative_to(environment)
    assert Path(found["ini"]).is_relative_to(environment)
    assert found["known"] == list(known())
    assert found["applied"] == [len(known()), 0]
    assert found["title"] == "From the wheel"
    assert found["drift"] == []


def test_alembic_s_command_works_with_the_wheel_s_ini(python: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.sqlite"
    found = "from agentos_store.migrate.revisions import alembic_ini; print(alembic_ini())"
    alembic = (python, "-m", "alembic", "-c", call(python, "-c", found, cwd=tmp_path).strip())
    call(*alembic, "upgrade", "head", cwd=tmp_path, DATABASE_URL=url)
    assert call(*alembic, "current", cwd=tmp_path, DATABASE_URL=url).split() == [HEAD, "(head)"]
