"""A small archive, and others as somebody would make them who knows the format."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from tests.operations.moving import fill_store

Files = list[tuple[str, bytes]]
"""What is in an archive, in its order: names and contents."""

Rewrite = Callable[..., Path]


@pytest.fixture(scope="module")
def archive(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a small store on SQLite; it is only read."""
    folder = tmp_path_factory.mktemp("archive")
    file = shutil.copy(sqlite_template, folder / "small.sqlite")
    with Store.open(f"sqlite:///{file}") as store:
        fill_store(store)
        store.backup(folder / "small.zip")
    return folder / "small.zip"


@pytest.fixture
def empty(sqlite_template: Path, tmp_path: Path) -> str:
    """An SQLite database without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'empty.sqlite')}"


@pytest.fixture
def rewrite(archive: Path, tmp_path: Path) -> Rewrite:
    """Makes an archive anew as somebody would who knows the format: with other files in it and the right digest."""

    def make(
        change: Callable[[Files], Files] = lambda files: files,
        manifest: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> Path:
        with zipfile.ZipFile(archive) as old:
            files = [(info.filename, old.read(info)) for info in old.infolist()]
        document = json.loads(files[-1][1])
        manifest(document)
        files[-1] = (files[-1][0], json.dumps(document).encode())
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
            for name, content in change(files):
                new.writestr(name, content)
            new.comment = b"0" * 64
        content = made.getvalue()
        path = tmp_path / "made.zip"
        path.write_bytes(content[:-64] + sha256(content).hexdigest().encode())
        return path

    return make
