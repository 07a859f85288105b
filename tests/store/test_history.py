"""Read, change, write, from eight threads: what all saw fits one order, and the checker finds it when it does not."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from tests.store.history import RolledBack, Transaction, anomalies, record

KEYS = 4
EACH = int(os.environ.get("AGENTOS_STORE_HISTORY", "25"))
"""Transactions of one thread."""


def look(task: Any) -> list[int]:
    return list(task.metadata_.get("list", []))


def test_what_eight_threads_saw_fits_one_order(store: Store) -> None:
    keys = sorted(store.tasks.create(title=str(i)).task_id for i in range(KEYS))

    def work(transaction: Transaction, chance: random.Random) -> None:
        if chance.random() < 0.25:
            with store.transaction(read_only=True) as tx:
                transaction.saw = {key: look(tx.tasks.get(key)) for key in keys}
            return
        chosen = sorted(chance.sample(keys, chance.randint(1, 3)))
        given_up = chance.random() < 0.15

        def change(tx: Any) -> None:
            transaction.saw.clear()
            for key in chosen:
                # The first statement writes, so the row is locked before it is read.
                transaction.saw[key] = there = look(tx.tasks.merge_metadata(key, {}))
                transaction.appended[key] = transaction.number
                tx.tasks.merge_metadata(key, {"list": [*there, transaction.number]})
            if given_up:
                raise RolledBack

        store.run(change)

    history = record(work, threads=8, each=EACH)
    final = {key: look(store.tasks.get(key)) for key in keys}
    assert sum(not each.committed for each in history) > 0
    assert sum(map(len, final.values())) > 8 * EACH
    assert anomalies(history, final) == []


def test_the_drivers_own_transactions_are_found_out(tmp_path: Path) -> None:
    """The sqlite3 module begins at the first change, so what was read before is read outside of the transaction."""
    path = tmp_path / "x"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE lists (key TEXT, elements TEXT)")
        raw.execute("INSERT INTO lists VALUES ('a', '[]')")
        raw.commit()
    both_have_read = threading.Barrier(2)

    def work(transaction: Transaction, chance: random.Random) -> None:
        with closing(sqlite3.connect(path, timeout=20)) as raw:
            there = json.loads(raw.execute("SELECT elements FROM lists").fetchone()[0])
            both_have_read.wait()
            raw.execute("UPDATE lists SET elements = ?", (json.dumps([*there, transaction.number]),))
            raw.commit()
        transaction.saw["a"], transaction.appended["a"] = there, transaction.number

    history = record(work, threads=2, each=3)
    with closing(sqlite3.connect(path)) as raw:
        final = {"a": json.loads(raw.execute("SELECT elements FROM lists").fetchone()[0])}
    assert len(anomalies(history, final)) >= 3


def told(number: int, saw: dict[str, list[int]], *appends: str, began: float = 0.0, **more: Any) -> Transaction:
    return Transaction(number, began, more.pop("ended", 10.0), saw=saw, appended=dict.fromkeys(appends, number), **more)


@pytest.mark.parametrize(
    ("history", "final", "what"),
    [
        ([told(1, {"a": []}, "a"), told(2, {"a": []}, "a")], {"a": [2]}, "0 times"),
        ([told(1, {"a": []}, "a"), told(2, {"a": [1]}, "a")], {"a": [1, 2, 2]}, "2 times"),
        ([told(1, {"a": []}, "a", committed=False)], {"a": [1]}, "rolled back"),
        ([told(1, {"a": []}, "a"), told(2, {"a": [1]}, "a"), told(3, {"a": [2]})], {"a": [1, 2]}, "no beginning"),
        # Each saw of the other what it wrote, or nothing of it.
        ([told(1, {"a": [], "b": [2]}, "a"), told(2, {"a": [1], "b": []}, "b")], {"a": [1], "b": [2]}, "a circle"),
        ([told(1, {"a": [], "b": []}, "a"), told(2, {"a": [], "b": []}, "b")], {"a": [1], "b": [2]}, "a circle"),
        # It began when the first had ended, and did not see it.
        ([told(1, {"a": []}, "a", ended=1.0), told(2, {"a": []}, began=2.0)], {"a": [1]}, "a circle"),
    ],
)
def test_the_checker_names_what_no_order_explains(history: Any, final: Any, what: str) -> None:
    (first, *_) = anomalies(history, final)
    assert what in first


def test_the_checker_lets_a_clean_history_pass() -> None:
    history = [told(1, {"a": []}, "a", ended=1.0), told(2, {"a": [1], "b": []}, "b", began=2.0), told(3, {"b": [2]})]
    assert anomalies(history, {"a": [1], "b": [2]}) == []
