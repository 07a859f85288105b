"""A store with something in it, for the tests that copy, damage and salvage it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from agentos_store import Store
from agentos_store.knowledge.chunks import NewChunk

WORDS = ("天气", "deploy", "database", "Überblick", "review", "token")

ANEW = {"search_documents", "event_orders", "agentos_store_version"}
"""Tables that a salvage does not copy."""


def populate(store: Store, *, seed: int = 1) -> None:
    """Write rows of many tables: some longer than a page, some deleted again."""
    choice = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(choice.choices(WORDS, k=count))

    with store.transaction() as tx:
        tx.projects.create(id="web", name="Web", path="/web")
        sessions = [tx.sessions.create(channel="api", title=words(3)) for _ in range(8)]
        for session in sessions:
            messages = [{"role": "user", "content": words(700 if n == 8 else 20)} for n in range(18)]
            tx.messages.append_many(session.id, messages)
        for number in range(40):
            task = tx.tasks.create(title=words(4), project_id="web", session_id=sessions[number % 8].id)
            for step in range(number % 10):
                tx.audits.record(task.task_id, event_type="step", payload={"step": step, "said": words(10)})
            tx.lineage.record(task.task_id, kind="commit", ref_id=f"c{number}")
        for number in range(200):
            tx.events.log("tool.finished", agent_id=f"a{number % 7}", data={"said": words(20)})
        for number in range(30):
            tx.memory.remember(f"{words(30)} {number}", type="decision", id=f"m{number:02}")
        for number in range(10):
            chunks = [NewChunk(words(30)) for _ in range(4)]
            tx.kb.refresh(source_path=f"{number}.md", content_hash="1", chunks=chunks)
        for number in range(0, 30, 5):
            tx.memory.delete(f"m{number:02}")


def leave_a_log(path: Path) -> Path:
    """Write, and leave what a killed process leaves: what was written is in the log only."""
    log = Path(f"{path}-wal")
    with Store.open(f"sqlite:///{path}") as store:
        store.tasks.create(title="in the log")
        left = [Path(shutil.copy(each, f"{each}.left")) for each in (path, log)]
    for each in left:
        each.replace(each.with_suffix(""))
    assert log.stat().st_size
    return log


def rows_of(path: Path | str) -> dict[str, set[tuple[object, ...]]]:
    """Return all rows by table, but for what is made anew."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        names = raw.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'search_index*'"
            " AND name NOT GLOB 'sqlite_*' ORDER BY name"
        ).fetchall()
        return {name: set(raw.execute(f"SELECT * FROM {name}").fetchall()) for (name,) in names if name not in ANEW}


def names_in(folder: Path) -> list[str]:
    """Return what lies in a folder, but for the lock files of a store, which stay."""
    return sorted(each.name for each in folder.iterdir() if not each.name.endswith(("-next", "-turn")))
