"""A file system that is full: typed errors, nothing half written, and as soon as there is room all goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from agentos_store import AsyncStore, Store, StoreError, UnavailableError
from agentos_store.engine.sqlite.queue import WriteQueue
from agentos_store.testing.postgres import URL_VARIABLE, connect
from tests.engine.gather import threads
from tests.engine.small_disk import SmallDisk, small_disk
from tests.standing import own_session, owners_work

pytestmark = [owners_work, own_session]

ROUNDS = int(os.environ.get("AGENTOS_STORE_FULL_DISKS", "1"))
WRITERS = 4
MOST = 400
"""Calls of one writer, at most."""

CODES = {"sqlite": ("SQLITE_FULL", "SQLITE_IOERR"), "postgresql": ("53100",)}

Small = tuple[str, SmallDisk]


@pytest.fixture
def small(backend: str, request: pytest.FixtureRequest) -> Iterator[Small]:
    """A migrated database on a small file system."""
    if backend == "sqlite":
        path: Path = request.getfixturevalue("tmp_path") / "small"
        with small_disk(path, 6) as disk:
            shutil.copy(request.getfixturevalue("sqlite_template"), path / "registry.sqlite")
            yield f"sqlite:///{path}/registry.sqlite", disk
        return
    if os.environ.get(URL_VARIABLE):
        pytest.skip("a server that belongs to somebody else is not given a tablespace")
    server: str = request.getfixturevalue("postgres_url")
    url: str = request.getfixturevalue("url")
    # Beside the server's own files, where its user may enter.
    base = Path(str(make_url(server).query.get("host")))
    if not (base / "data").is_dir():
        pytest.skip("the server's files are not on this machine")
    name, database = f"small_{secrets.token_hex(4)}", make_url(url).database
    with small_disk(base / name, 64) as disk, connect(server) as admin:
        space = disk.path / "space"
        space.mkdir()
        os.chown(space, base.stat().st_uid, base.stat().st_gid)
        admin.execute(f"CREATE TABLESPACE {name} LOCATION '{space}'".encode())
        admin.execute(f'ALTER DATABASE "{database}" SET TABLESPACE {name}'.encode())
        try:
            yield url, disk
        finally:
            admin.execute(f'ALTER DATABASE "{database}" SET TABLESPACE pg_default'.encode())
            admin.execute(f"DROP TABLESPACE {name}".encode())


class Written:
    """What writers were told of their calls."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.refused: dict[str, StoreError] = {}

    def write_until_refused(self, store: Store, writer: int) -> None:
        """Write until there is no room, and a little further."""
        refusals = 0
        for number in range(MOST):
            key = f"{writer}-{number}"
            try:
                self.write(store, key)
            except StoreError as error:
                self.refused[key] = error
                refusals += 1
                if refusals == 3:
                    return

    def write(self, store: Store, key: str) -> None:
        """Append a message, or several rows in a transaction."""
        # Texts that the server cannot compress.
        text = secrets.token_hex(1500)
        if is_one_piece(key):
            store.messages.append("shared", role="user", content=text, id=key)
        else:
            with store.transaction() as tx:
                tx.tasks.create(task_id=key, title="t", payload=text)
                tx.audits.record("shared", event_type="e", payload=key)
                tx.messages.append("shared", role="user", content=text, id=key)
        self.acknowledged.add(key)

    def wrong(self, store: Store, codes: tuple[str, ...]) -> list[str]:
        """Return what is not as it was told."""
        tasks = {task.task_id for task in store.tasks.iterate()} - {"shared"}
        messages = {message.id for message in store.messages.iterate("shared")}
        audits = Counter(audit.payload for audit in store.audits.iterate(task_id="shared"))
        pieces = set(filter(is_one_piece, messages))
        found = [f"{key} was acknowledged and is not there" for key in self.acknowledged - messages]
        found += [f"{key} was refused and is there" for key in set(self.refused) & (messages | tasks | set(audits))]
        found += [f"{key} is half there" for key in (tasks | set(audits)) ^ (messages - pieces)]
        found += [f"{key} is there {count} times" for key, count in audits.items() if count > 1]
        found += [
            f"{key} was refused with {error!r}"
            for key, error in self.refused.items()
            if not isinstance(error, UnavailableError) or not str(error.code).startswith(codes)
        ]
        if not store.audits.verify().ok:
            found.append("the audit chain does not verify")
        return found + [str(finding) for finding in store.check_consistency().findings]


def is_one_piece(key: str) -> bool:
    """Tell whether the call of this name writes with a single operation."""
    return int(key.partition("-")[2]) % 3 > 0


def begin(url: str) -> Store:
    store = Store.open(url)
    if not store.tasks.exists("shared"):
        store.tasks.create(task_id="shared", title="t")
        store.sessions.create(id="shared")
    return store


def is_sound(url: str) -> bool:
    if not url.startswith("sqlite"):
        return True
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as raw:
        return bool(raw.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def until_all_are_refused(store: Store) -> Written:
    """Let writers fill up what room there is."""
    written = Written()
    with threads([partial(written.write_until_refused, store, writer) for writer in range(WRITERS)]) as outcomes:
        pass
    assert outcomes == [None] * WRITERS
    return written


@pytest.mark.parametrize("spare", [0, 150_000, 900_000] * ROUNDS)
def test_a_full_file_system_refuses_what_it_does_not_store_and_loses_nothing(
    small: Small, backend: str, spare: int
) -> None:
    url, disk = small
    with begin(url) as store:
        disk.fill(spare)
        written = until_all_are_refused(store)
        assert len(written.refused) >= WRITERS
        # Reading needs no room, and the other face says the same.
        assert written.wrong(store, CODES[backend]) == []
        assert refused_when_awaited(url) == (backend, True)
        disk.empty()
        written.write(store, "9-999")
        assert written.wrong(store, CODES[backend]) == []
        disk.fill(0)
    # It was closed, which checkpoints, when there was no room either.
    disk.empty()
    assert is_sound(url)
    with begin(url) as store:
        assert "9-999" in written.acknowledged
        written.write(store, "9-1000")
        assert written.wrong(store, CODES[backend]) == []


def refused_when_awaited(url: str) -> tuple[str, bool]:
    """Append a message that is larger than what is left of any page; return whose refusal it was."""

    async def main() -> tuple[str, bool]:
        async with AsyncStore.open(url) as store:
            with pytest.raises(UnavailableError) as caught:
                await store.messages.append("shared", role="user", content=secrets.token_hex(500_000))
            return store.capabilities.backend, "full" in str(caught.value)

    return asyncio.run(main())


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_store_that_is_opened_when_there_is_no_room_reads_or_says_so(small: Small) -> None:
    url, disk = small
    with begin(url):
        pass
    disk.fill(0)
    try:
        with Store.open(url) as store:
            assert store.tasks.exists("shared")
    except UnavailableError as error:
        assert str(error.code).startswith(CODES["sqlite"])  # noqa: PT017  either is right
    disk.empty()
    with Store.open(url) as store:
        assert store.tasks.exists("shared")
        store.tasks.create(title="t")
    assert is_sound(url)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_queue_that_takes_no_notice_of_a_failed_commit_is_found_out(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, disk = small
    commit = WriteQueue._commit

    def commit_or_not(self: WriteQueue, raw: sqlite3.Connection) -> None:
        with contextlib.suppress(UnavailableError):
            commit(self, raw)

    with begin(url) as store:
        disk.fill(150_000)
        with monkeypatch.context() as patch:
            patch.setattr(WriteQueue, "_commit", commit_or_not)
            written = Written()
            written.write_until_refused(store, 0)
        disk.empty()
        assert any("acknowledged and is not there" in each for each in written.wrong(store, CODES["sqlite"]))
