"""Ctrl-C ends an import with one line, and the import can be repeated."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.importers.agentos.load import import_registry
from agentos_store.testing.registries import make_registry

Run = Callable[..., Any]

HEARS_SIGINT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
"""Whoever runs the tests in the background has it ignored, and a child inherits that."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A registry, how many audits it holds, and the URL of a store with all of it."""
    folder = tmp_path_factory.mktemp("imported")
    made = make_registry(folder / "big.sqlite", tasks=250)
    url = f"sqlite:///{folder}/other.sqlite"
    with Store.open(url) as store:
        import_registry(store, folder / "big.sqlite")
    return folder / "big.sqlite", made["expected"]["audits"]["imported"], url


def test_an_interrupted_import_ends_with_one_line_and_can_be_repeated(
    cli: Run, start: Run, store: Store, url: str, imported: tuple[Path, int, str]
) -> None:
    big, audits, undisturbed = imported
    child = start("--url", url, "import", "agentos", big, before=HEARS_SIGINT)
    while child.poll() is None and not store.audits.count():
        time.sleep(0.003)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, out) == (130, "")
    assert err == "interrupted: what was committed stays; the command can be repeated\n"
    assert 0 < store.audits.count() < audits
    assert cli("--url", url, "import", "agentos", big).code == 0
    with Store.open(undisturbed) as other:
        assert store.audits.verify() == other.audits.verify()
        assert store.audits.count() == audits
        assert [task.to_dict() for task in store.tasks.iterate()] == [task.to_dict() for task in other.tasks.iterate()]
