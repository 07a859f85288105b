"""Ctrl-C ends an import with one line, and the import can be repeated."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentos_store import Store
from agentos_store.importers.agentos.load import import_registry
from agentos_store.testing.registries import make_registry

Run = Callable[..., Any]

HEARS_SIGINT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
"""Whoever runs the tests in the background has it ignored, and a child inherits that."""


def test_an_interrupted_import_ends_with_one_line_and_can_be_repeated(
    cli: Run, start: Run, store: Store, url: str, tmp_path: Path
) -> None:
    big = tmp_path / "big.sqlite"
    made = make_registry(big, tasks=400)
    child = start("--url", url, "import", "agentos", big, before=HEARS_SIGINT)
    while child.poll() is None and not store.audits.count():
        time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, out) == (130, "")
    assert err == "interrupted: what was committed stays; the command can be repeated\n"
    assert 0 < store.audits.count() < made["expected"]["audits"]["imported"]
    assert cli("--url", url, "import", "agentos", big).code == 0
    with Store.open(f"sqlite:///{tmp_path}/other.sqlite") as other:
        import_registry(other, big)
        assert store.audits.verify() == other.audits.verify()
        assert store.audits.count() == made["expected"]["audits"]["imported"]
        assert [task.to_dict() for task in store.tasks.iterate()] == [task.to_dict() for task in other.tasks.iterate()]
