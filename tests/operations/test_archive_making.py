"""Archives under load, on full disks, in processes that are killed, and of many rows."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import (
    AlreadyExistsError,
    SchemaMismatchError,
    Settings,
    Store,
    UnavailableError,
    restore_backup,
    verify_backup,
)
from agentos_store.operations.moving.archive_source import ArchiveReport
from agentos_store.store.repositories import import_every_domain
from tests.engine.gather import PROCESSES, threads, wait_for
from tests.operations.moving import fill_store
from tests.standing import owners_work
from tests.weighing import peak

pytestmark = owners_work

MANY = bool(os.environ.get("AGENTOS_STORE_MANY"))
MESSAGES, IN_SESSION, IMAGE = (1_000_000, 10_000, 480) if MANY else (5_000, 1_000, 8_000)
"""Many, or fewer of more bytes each, which together are as much beyond the limit."""

MEGABYTES = 200 if MANY else 30
"""What a process may take for many messages: all in all, or beyond what it had before."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place for archives, with nothing else in it."""
    found = tmp_path / "archives"
    found.mkdir()
    return found


def rows_in(path: Path, table: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        columns = next(each["columns"] for each in manifest["tables"] if each["name"] == table)
        lines = archive.read(f"tables/{table}.jsonl").splitlines()
    return [dict(zip(columns, json.loads(line), strict=True)) for line in lines]


def killed(work: Callable[..., object], *arguments: object) -> None:
    child = PROCESSES.Process(target=work, args=arguments, daemon=True)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def dying_at(stage: str, reached: int) -> Callable[[str, int, int], None]:
    def told(now: str, done: int, _: int) -> None:
        if (now, True) == (stage, done >= reached):
            os.kill(os.getpid(), signal.SIGKILL)

    return told


def back_up_and_die(url: str, path: Path, reached: int) -> None:
    with Store.open(url) as store:
        store.backup(path, progress=dying_at("archiving", reached))


def restore_and_die(path: Path, url: str, stage: str, reached: int) -> None:
    restore_backup(path, url, progress=dying_at(stage, reached))


def test_a_backup_that_is_killed_has_no_name_and_leaves_nothing_to_the_next_one(
    store: Store, url: str, folder: Path
) -> None:
    fill_store(store)
    path = folder / "a.zip"
    killed(back_up_and_die, url, path, 70)
    assert not path.exists()
    assert len(list(folder.iterdir())) == 1
    store.backup(path)
    assert [each.name for each in folder.iterdir()] == ["a.zip"]
    verify_backup(path)


def test_a_restore_that_is_killed_goes_on_and_cannot_be_used_before(
    url: str, folder: Path, sqlite_template: Path
) -> None:
    with Store.open(f"sqlite:///{shutil.copy(sqlite_template, folder / 'source.sqlite')}") as store:
        fill_store(store)
        made = store.backup(folder / "a.zip")
    assert isinstance(made, ArchiveReport)
    for stage, reached in (("writing", 45), ("comparing", 20)):
        killed(restore_and_die, folder / "a.zip", url, stage, reached)
        with pytest.raises(SchemaMismatchError, match="unfinished"):
            Store.open(url)
    report: Any = restore_backup(folder / "a.zip", url)
    assert report.resumed
    assert report.root_hash == made.root_hash
    with Store.open(url) as there:
        again = there.backup(folder / "b.zip")
    assert isinstance(again, ArchiveReport)
    assert again.root_hash == made.root_hash


def test_an_archive_is_of_one_moment_while_others_write(store: Store, folder: Path) -> None:
    sessions = ["s-0", "s-1"]
    for key in sessions:
        store.sessions.create(id=key)
    over = threading.Event()
    written = dict.fromkeys(sessions, 0)

    def write(key: str) -> None:
        while not over.is_set():
            store.messages.append_many(key, [{"role": "user", "content": "x"}] * 3)
            written[key] += 3

    def back_up() -> None:
        try:
            for number in range(3):
                before = dict(written)
                wait_for(lambda before=before: all(written[key] > before[key] for key in sessions))  # type: ignore[misc]
                before = dict(written)
                path = folder / f"{number}.zip"
                store.backup(path)
                verify_backup(path)
                said = [(each["session_id"], each["seq"]) for each in rows_in(path, "messages")]
                for each in rows_in(path, "sessions"):
                    count = each["next_seq"]
                    assert count % 3 == 0
                    assert count >= before[each["id"]]
                    assert {seq for session, seq in said if session == each["id"]} == set(range(count))
        finally:
            over.set()

    with threads([back_up, *(lambda key=key: write(key) for key in sessions)]) as outcomes:
        pass
    assert outcomes == [None] * 3


def test_of_two_backups_of_one_name_one_is_made(store: Store, folder: Path) -> None:
    fill_store(store)
    path = folder / "a.zip"
    both_at_work = threading.Barrier(2)

    def back_up() -> None:
        told = 0

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal told
            told += 1
            if told == 1:
                both_at_work.wait()

        store.backup(path, progress=progress)

    with threads([back_up, back_up]) as outcomes:
        pass
    assert {type(each) for each in outcomes} == {AlreadyExistsError, type(None)}
    assert [each.name for each in folder.iterdir()] == ["a.zip"]
    verify_backup(path)


def test_a_full_disk_leaves_nothing_behind(store: Store, url: str, folder: Path) -> None:
    fill_store(store)
    reader, writer = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=work_on_a_full_disk, args=(url, folder, writer), daemon=True)
    child.start()
    writer.close()
    with reader:
        assert reader.recv() == ["ENOSPC", "ENOSPC"]
    child.join()
    assert list(folder.iterdir()) == []


def work_on_a_full_disk(url: str, folder: Path, answers: Any) -> None:
    found = []
    with Store.open(url) as store:
        # Python ignores the signal that goes with it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
        for work in (lambda: store.backup(folder / "a.zip"), lambda: store.export(folder / "out")):
            try:
                work()
            except UnavailableError as error:
                found.append("ENOSPC" if "full" in error.why else error.why)
    answers.send(found)


def test_memory_does_not_grow_with_the_number_of_messages(folder: Path, sqlite_template: Path) -> None:
    source, target = folder / "source.sqlite", folder / "target.sqlite"
    for file in (source, target):
        shutil.copy(sqlite_template, file)
    fill_with_messages(source)
    peaks = []
    for work, url in ((out_of, source), (into, target)):
        reader, writer = PROCESSES.Pipe(duplex=False)
        arguments = (work, f"sqlite:///{url}", folder, writer)
        child = PROCESSES.Process(target=work_and_weigh, args=arguments, daemon=True)
        child.start()
        writer.close()
        with reader:
            peaks.append(reader.recv())
        child.join()
    assert max(peaks) < MEGABYTES, peaks
    with Store.open(f"sqlite:///{target}") as store:
        assert store.status().rows["messages"] == MESSAGES


def fill_with_messages(file: Path) -> None:
    """Write them as another program would, in no time, and with nothing in them that is indexed."""
    with Store.open(f"sqlite:///{file}", settings=Settings.load(durability="process_crash")) as store:
        for number in range(MESSAGES // IN_SESSION):
            store.sessions.create(id=f"s-{number}")
        store.messages.append("s-0", role="user", content=[{"type": "image", "data": "iVBORw0KGgo=" * (IMAGE // 12)}])
    with contextlib.closing(sqlite3.connect(file)) as raw:
        raw.row_factory = sqlite3.Row
        first = dict(raw.execute("SELECT * FROM messages").fetchone())
        rows = (
            {**first, "id": f"{n:026}", "session_id": f"s-{n // IN_SESSION}", "seq": n % IN_SESSION}
            for n in range(1, MESSAGES)
        )
        names = ", ".join(first)
        raw.executemany(f"INSERT INTO messages ({names}) VALUES (:{', :'.join(first)})", rows)
        raw.execute("UPDATE sessions SET next_seq = ?", (IN_SESSION,))
        raw.commit()


def out_of(url: str, folder: Path) -> None:
    with Store.open(url) as store:
        store.backup(folder / "a.zip")
        store.export(folder / "out", ["messages"])
    verify_backup(folder / "a.zip")


def into(url: str, folder: Path) -> None:
    restore_backup(folder / "a.zip", url)


def work_and_weigh(work: Callable[[str, Path], None], url: str, folder: Path, answers: Any) -> None:
    import_every_domain()
    before = 0 if MANY else peak()
    work(url, folder)
    answers.send(peak() - before)
