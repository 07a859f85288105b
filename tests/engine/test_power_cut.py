"""Power cuts, replayed from what SQLite wrote: FULL loses nothing that was acknowledged, NORMAL does."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Settings, Store
from tests.engine.gather import PROCESSES
from tests.engine.power import after_cut, lay_down
from tests.engine.recorded_vfs import Step, can_record, record

CUTS = int(os.environ.get("AGENTOS_STORE_POWER_CUTS", "40"))
WRITERS = 3
EACH = max(20, CUTS // 4)
"""Calls of one writer."""


def write(path: str, task_id: str, durability: str, results: Any) -> None:
    """Record audits from several threads; send what SQLite wrote meanwhile, with a mark for each call that returned."""
    recorder = record()
    with Store.open(f"sqlite:///{path}", settings=Settings.load(durability=durability)) as store:

        def work(writer: int) -> None:
            for i in range(EACH):
                number = writer * EACH + i
                if number % 7 == 3:
                    with store.transaction() as tx:
                        tx.audits.record(task_id, event_type=f"w{writer}", payload=number)
                        tx.tasks.create(title=str(number))
                else:
                    store.audits.record(task_id, event_type=f"w{writer}", payload=number)
                recorder.mark(number)

        # So that cuts come between checkpoints, and in the midst of them, after few writes.
        store.audits.record(task_id, event_type="begin")
        store._backend.queue.writer.raw.execute("PRAGMA wal_autocheckpoint=40")  # type: ignore[attr-defined]
        threads = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        steps = list(recorder.steps)
    results.send(steps)


def recorded(path: Path, durability: str) -> tuple[dict[str, bytes], list[Step]]:
    """Return the files before the writers came, and what they did to them."""
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        task_id = store.tasks.create(title="t").task_id
    before = {str(path): path.read_bytes()}
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=write, args=(str(path), task_id, durability, sender))
    process.start()
    sender.close()
    steps: list[Step] = receiver.recv()
    process.join()
    assert len([step for step in steps if step.kind == "mark"]) == WRITERS * EACH
    # Pages went from the log into the file, whose syncs keep a cut from tearing it.
    assert any(step.kind == "write" and step.name == str(path) for step in steps)
    return before, steps


def lost_by(before: dict[str, bytes], steps: list[Step], path: Path, place: Path, chance: random.Random) -> list[int]:
    """Cut the power at a moment after the first acknowledgement; return the acknowledged calls that are lost."""
    first = next(i for i, step in enumerate(steps) if step.kind == "mark")
    cut = chance.randrange(first, len(steps)) + 1
    files = after_cut(before, steps[:cut], chance)
    here = place / "registry.sqlite"
    lay_down(files, {str(path): here, f"{path}-wal": Path(f"{here}-wal")})
    Path(f"{here}-shm").unlink(missing_ok=True)
    acknowledged = {step.offset for step in steps[:cut] if step.kind == "mark"}
    with Store.open(f"sqlite:///{here}") as store:
        found = {audit.payload for audit in store.audits.iterate() if audit.event_type.startswith("w")}
        together = {int(task.title) for task in store.tasks.iterate() if task.title != "t"}
        # What was not acknowledged may be there, but whole: both rows of a transaction, and a chain that holds.
        assert together == {number for number in found if number % 7 == 3}
        assert store.audits.verify().ok
    with closing(sqlite3.connect(here)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return sorted(acknowledged - found)


@pytest.mark.skipif(not can_record(), reason="the sqlite3 module hides the functions of SQLite")
@pytest.mark.parametrize("durability", ["full", "process_crash"])
def test_a_power_cut_loses_nothing_acknowledged_but_where_that_was_chosen(
    path: Path, durability: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before, steps = recorded(path, durability)
    place = tmp_path_factory.mktemp("cut")
    chance = random.Random(7)
    lost = [bool(lost_by(before, steps, path, place, chance)) for _ in range(CUTS)]
    # The second proves that the replay can lose something.
    assert any(lost) == (durability == "process_crash")
