"""A copy holds the same, in every table, and goes on where its source stood."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from agentos_store import AsyncStore, ConflictError, InvalidValueError, NotFoundError, SchemaMismatchError, Store
from agentos_store.engine.version import HEAD, UNFINISHED
from agentos_store.errors import UnavailableError
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.kode.load import import_store
from agentos_store.importers.openai.load import import_transcripts
from agentos_store.migrate.revisions import known
from agentos_store.operations.moving.copying import compare_stores, copy_store
from agentos_store.testing import reset_schema
from agentos_store.testing.registries import make_registry
from tests.operations.moving import counts_of, fill_store
from tests.standing import owners_work

pytestmark = [pytest.mark.usefixtures("own_transactions_only"), owners_work]

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data"

Raw = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="session")
def moving_template(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with rows in every table, only ever copied."""
    path = Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("moving") / "store.sqlite"))
    with Store.open(f"sqlite:///{path}") as store:
        fill_store(store)
        list(store.events.subscribe(from_start=True, timeout=0))
    return path


@pytest.fixture
def source(moving_template: Path, tmp_path: Path) -> str:
    """The URL of an SQLite store with rows in every table."""
    return f"sqlite:///{shutil.copy(moving_template, tmp_path / 'source.sqlite')}"


@pytest.fixture
def on_server(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A schema that is not there yet, with a name that has to be quoted."""
    schema = f"Moving %s: {os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    yield schema
    reset_schema(postgres_url, schema)


def test_there_and_back_again_everything_is_as_it_was(
    source: str, postgres_url: str, on_server: str, tmp_path: Path
) -> None:
    there = copy_store(source, postgres_url, target_schema=on_server)
    back = copy_store(postgres_url, f"sqlite:///{tmp_path}/new/back.sqlite", source_schema=on_server)
    assert there.root_hash == back.root_hash
    assert there.hashes == back.hashes
    assert not there.resumed
    assert there.broken_trails == []
    compared = compare_stores(source, f"sqlite:///{tmp_path}/new/back.sqlite")
    assert compared.ok
    assert compared.source_root_hash == compared.target_root_hash == there.root_hash
    with Store.open(source) as before, Store.open(f"sqlite:///{tmp_path}/new/back.sqlite") as after:
        counts = counts_of(before), counts_of(after)
        assert counts[1] | {"search_documents": 0} == counts[0] | {"search_documents": 0}
        # Of what is deleted nothing is indexed.
        assert {kind: index.missing for kind, index in after.search.check().items()} == {
            "memory": 0,
            "chunk": 0,
            "message": 1,
        }
        assert after.check_consistency() == before.check_consistency()
    assert (tmp_path / "new" / "back.sqlite").stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "new").glob("*-move"))


@pytest.mark.parametrize("backend", ["postgresql"])
def test_rows_of_a_server_come_to_another_schema_as_they_are(store: Store, url: str) -> None:
    fill_store(store)
    target: dict[str, Any] = {"target": url, "target_schema": "elsewhere"}
    report = copy_store(url, **target)
    assert report.rows == sum(counts_of(store)[name] for name in report.hashes)
    compared = compare_stores(url, **target)
    assert compared.ok
    with Store.open(url, schema="elsewhere") as other:
        assert other.search.check()["chunk"].ok
        assert other.audits.verify() == store.audits.verify()


def test_what_works_on_the_source_works_on_the_copy(source: str, url: str) -> None:
    with Store.open(source) as before:
        followed = before.events.subscribe(from_start=True, timeout=0)
        assert [next(followed).event_id for _ in range(3)] == ["e-0", "e-1", "e-2"]
        bookmark = followed.bookmark
        before.tasks.create(title="next", task_id="t-next", enqueue=True)
        (link,) = before.tasks.iterate_dependencies(task_id="t-1")
    copy_store(source, url)
    with Store.open(url) as store:
        # What was searched is found, and so is what a conversation says now.
        assert [hit.chunk.content for hit in store.kb.search("wonderful")] == ["weather is wonderful"]
        assert [hit.item.content for hit in store.memory.search("sunny")] == ["sunny weather"]
        assert len(store.messages.search("天气")) >= 1
        assert store.messages.history("s-1")[-1]["content"] == "weather"
        # References that go in circles.
        assert store.projects.get("web-shop").default_repo_id == "back"
        assert store.agents.get("a-child").parent_id == "a-parent"
        assert store.agents.get("a-parent").last_task_id == "t-2"
        assert store.audits.verify().ok
        assert [link.ref_id for link in store.lineage.chain("t-1")]
        # Numbers that were given are not given again.
        added = store.tasks.add_dependency("t-3", "t-1")
        assert added.dependency_id == link.dependency_id + 2
        entry = store.audits.record("t-1", event_type="after")
        assert entry is not None
        assert entry.audit_id == store.audits.list(limit=1000).items[-1].audit_id
        assert store.audits.verify().ok
        # The queue goes on, and who follows the events goes on where it stood.
        claimed = store.tasks.claim(by="w", lease=dt.timedelta(hours=1))
        assert claimed is not None
        assert claimed.task_id == "t-next"
        store.events.log("after", event_id="e-after")
        rest = store.events.subscribe(bookmark, timeout=0)
        assert [event.event_id for event in rest] == ["e-3", "e-4", "e-after"]
        store.sessions.restore("s-gone")
        assert len(store.messages.search("word")) == 1


def test_a_second_copy_brings_what_the_first_one_has(source: str, url: str, tmp_path: Path) -> None:
    first = copy_store(source, url)
    with pytest.raises(ConflictError, match="not empty: there are rows in"):
        copy_store(source, url)
    with pytest.raises(ConflictError, match="not empty"):
        # What a finished copy holds is no rest of an unfinished one.
        copy_store(source, url, restart=True)
    with Store.open(url) as store:
        store.tasks.create(title="another")
        store.events.log("another")
    again = copy_store(source, url, replace=True)
    assert again.root_hash == first.root_hash
    assert compare_stores(source, url).ok


def test_what_stands_against_a_copy_is_said_and_nothing_is_changed(
    source: str, url: str, tmp_path: Path, raw: Raw
) -> None:
    with pytest.raises(NotFoundError):
        copy_store(f"sqlite:///{tmp_path}/nothing.sqlite", url)
    assert not (tmp_path / "nothing.sqlite").exists()
    with pytest.raises(ConflictError, match="both the source and the target"):
        copy_store(url, url)
    with pytest.raises(ConflictError, match="both the source and the target"):
        copy_store(source, f"sqlite:///{tmp_path}/../{tmp_path.name}/source.sqlite")
    with pytest.raises(InvalidValueError, match="source"):
        copy_store("mysql://u:sekret@h/d", url)
    with pytest.raises(InvalidValueError, match="target schema"):
        copy_store(source, f"sqlite:///{tmp_path}/x.sqlite", target_schema="s")
    raw("UPDATE agentos_store_version SET revision = '0015_leases'")
    for pair in ((source, url), (url, source)):
        with pytest.raises(SchemaMismatchError, match="db upgrade"):
            copy_store(*pair)
    raw("UPDATE agentos_store_version SET revision = '9999_later'")
    for pair in ((source, url), (url, source)):
        with pytest.raises(SchemaMismatchError, match="newer"):
            copy_store(*pair)


def test_a_file_of_another_program_is_left_alone(source: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(SchemaMismatchError, match="another program"):
        copy_store(source, f"sqlite:///{tmp_path}/other.db", replace=True)


class Stopped(Exception):
    """Stands for whatever ends a copy."""


def stop_at(stage: str, rows: int = 0) -> Callable[[str, int, int], None]:
    def progress(reached: str, done: int, total: int) -> None:
        assert done <= total or reached != "writing"
        if reached == stage and done >= rows:
            raise Stopped

    return progress


def test_a_copy_that_was_stopped_cannot_be_opened_and_goes_on_wherever_that_was(source: str, url: str) -> None:
    for stage, rows in (("writing", 40), ("indexing message", 0), ("comparing", 0), ("verifying", 0)):
        with pytest.raises(Stopped):
            copy_store(source, url, progress=stop_at(stage, rows))
    for attempt in (Store.open, lambda url: copy_store(url, f"{source}2"), lambda url: compare_stores(source, url)):
        with pytest.raises(SchemaMismatchError, match="unfinished copy or restore; run the same command again"):
            attempt(url)
    report = copy_store(source, url)
    assert report.resumed
    compared = compare_stores(source, url)
    assert compared.ok
    assert compared.source_root_hash == report.root_hash
    with Store.open(url) as store:
        assert all(index.ok for index in store.search.check().values())


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_copy_does_not_go_on_from_a_source_that_has_changed(source: str, url: str) -> None:
    with pytest.raises(Stopped):
        copy_store(source, url, progress=stop_at("comparing"))
    with Store.open(source) as before:
        before.tasks.merge_metadata("t-1", {"changed": True})
    with pytest.raises(ConflictError, match="rows of tasks are not those"):
        copy_store(source, url)
    with pytest.raises(SchemaMismatchError):
        Store.open(url)
    report = copy_store(source, url, restart=True)
    assert not report.resumed
    assert compare_stores(source, url).ok


def test_a_second_copy_at_the_same_time_is_refused(source: str, url: str) -> None:
    refused: list[Exception] = []

    def progress(stage: str, done: int, total: int) -> None:
        if not refused:
            with pytest.raises(ConflictError, match="another copy or restore is at work") as caught:
                copy_store(source, url, replace=True)
            refused.append(caught.value)

    copy_store(source, url, progress=progress)
    assert refused
    assert compare_stores(source, url).ok


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_copy_that_another_version_began_is_not_gone_on_with(source: str, url: str, raw: Raw) -> None:
    with pytest.raises(Stopped):
        copy_store(source, url, progress=stop_at("comparing"))
    raw("UPDATE agentos_store_move SET digits = '0012_message_search' WHERE name = 'revision'")
    for restart in (False, True):
        with pytest.raises(SchemaMismatchError, match="another version of agentos-store began"):
            copy_store(source, url, restart=restart)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_copy_whose_place_was_taken_stops(source: str, url: str, monkeypatch: pytest.MonkeyPatch, raw: Raw) -> None:
    # Without the lock, which a server may have lost with a connection.
    def progress(stage: str, done: int, total: int) -> None:
        raw("UPDATE agentos_store_move SET moved = 7, digits = '1' WHERE name = 'tasks'")

    with pytest.raises(ConflictError, match="another copy or restore is at work"):
        copy_store(source, url, progress=progress)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_byte_that_was_changed_is_found_and_its_row_named(source: str, url: str, raw: Raw) -> None:
    copy_store(source, url)
    raw("UPDATE memory_items SET type = 'fakt' WHERE scope = 'project'")
    raw("DELETE FROM leases WHERE name = 'expired'")
    raw("INSERT INTO import_ledger SELECT source, kind, 'new', our_key, imported_at FROM import_ledger LIMIT 1")
    compared = compare_stores(source, url)
    assert not compared.ok
    assert compared.source_root_hash != compared.target_root_hash
    found = {name: table for name, table in compared.tables.items() if table.differing}
    assert {name: table.differing for name, table in found.items()} == {
        "memory_items": 1,
        "leases": 1,
        "import_ledger": 1,
    }
    assert found["memory_items"].first[0].endswith(": differs in type")
    assert found["leases"].first == ["expired: is only in the source"]
    assert found["import_ledger"].first[0].endswith("new: is only in the target")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_byte_that_is_changed_before_the_end_ends_the_copy(source: str, url: str, raw: Raw) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "indexing message":
            raw("UPDATE users SET name = name || '.'")

    with pytest.raises(ConflictError, match=r"not what was written: users \(1 rows, 1 in the source\)"):
        copy_store(source, url, progress=progress)
    with pytest.raises(SchemaMismatchError):
        Store.open(url)


def test_who_had_the_target_open_writes_nothing_there_unseen(source: str, url: str, raw: Raw) -> None:
    on_file = url.startswith("sqlite")
    with Store.open(url) as before:

        def writing(stage: str, done: int, total: int) -> None:
            if stage == "verifying":
                before.tasks.create(title="mine")

        with pytest.raises(ConflictError, match=r"tasks \(4 rows, 3 in the source\); unless somebody else wrote"):
            copy_store(source, url, progress=writing)
        with pytest.raises(SchemaMismatchError):
            Store.open(url)

    refused: list[str] = []

    def locked_out(stage: str, done: int, total: int) -> None:
        if stage == "comparing" and not refused:
            raw("PRAGMA busy_timeout = 0" if on_file else "SET lock_timeout = 1")
            with pytest.raises(Exception, match=r"locked|lock timeout") as caught:
                raw("INSERT INTO users (id, name) VALUES ('u', 'n')")
            refused.append(str(caught.value))

    copy_store(source, url, restart=True, progress=locked_out)
    assert refused
    assert compare_stores(source, url).ok


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_broken_trail_of_the_source_is_told(source: str, url: str) -> None:
    with closing(sqlite3.connect(source.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("UPDATE task_audit_heads SET length = length + 1 WHERE task_id = 't-2'")
    report = copy_store(source, url)
    assert report.broken_trails == ["t-2"]
    assert compare_stores(source, url).ok


@pytest.mark.parametrize("backend", ["sqlite"])
def test_rows_that_the_target_refuses_are_named(source: str, url: str) -> None:
    with closing(sqlite3.connect(source.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("UPDATE agents SET parent_id = 'nobody' WHERE agent_id = 'a-child'")
        with pytest.raises(ConflictError, match=r"agents, what .*parent_id.* of some rows refer to.*refuses them"):
            copy_store(source, url)
        connection.execute("UPDATE kb_chunks SET source_id = 'nobody'")
    with pytest.raises(ConflictError, match=r"kb_chunks, rows 1 to 2.*refuses them"):
        copy_store(source, url, restart=True)


def test_other_secrets_than_the_place_stay_secret(source: str, postgres_url: str) -> None:
    url = make_url(postgres_url).set(password="sekret", database="nothing").render_as_string(hide_password=False)
    with pytest.raises(UnavailableError) as caught:
        copy_store(source, url)
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_both_stores_copy_what_they_have_open(source: str, url: str, tmp_path: Path) -> None:
    stages: set[str] = set()
    with Store.open(source) as store:
        first = store.copy_to(url, progress=lambda stage, *_: stages.add(stage))
    assert {"writing", "comparing", "verifying"} <= stages

    async def main() -> str:
        async with AsyncStore.open(url) as store:
            report = await store.copy_to(f"sqlite:///{tmp_path}/third.sqlite")
            with pytest.raises(ConflictError):
                await store.copy_to(f"sqlite:///{tmp_path}/third.sqlite")
            return report.root_hash

    assert asyncio.run(main()) == first.root_hash


@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_is_written_meanwhile_is_not_copied(source: str, url: str) -> None:
    with Store.open(source) as store:

        def progress(stage: str, done: int, total: int) -> None:
            store.events.log("meanwhile")
            store.tasks.merge_metadata("t-1", {"changed": done})

        before = store.events.count()
        store.copy_to(url, progress=progress)
    with Store.open(url) as copied:
        assert copied.events.count() == before
        assert "changed" not in copied.tasks.get("t-1").metadata


@pytest.mark.parametrize("backend", ["postgresql"])
def test_all_samples_come_back_with_the_same_root_hash(sqlite_template: Path, tmp_path: Path, url: str) -> None:
    first, last = (f"sqlite:///{shutil.copy(sqlite_template, tmp_path / name)}" for name in ("first.db", "last.db"))
    registry = SAMPLES / "agentos-registry" / "registry-v25.sqlite"
    if not (registry.exists() and os.environ.get("AGENTOS_STORE_MANY")):
        registry = tmp_path / "registry.sqlite"
        make_registry(registry, tasks=24)
    with Store.open(first) as store:
        import_registry(store, registry)
        if (SAMPLES / "kode-jsonstore").exists():
            import_store(store, SAMPLES / "kode-jsonstore")
        if (SAMPLES / "tau-bench").exists() and os.environ.get("AGENTOS_STORE_MANY"):
            import_transcripts(store, SAMPLES / "tau-bench" / "gpt-4o-airline.json.gz")
    there, back = copy_store(first, url), copy_store(url, last)
    # Of what was read from the one, and read back from the other.
    assert there.root_hash == back.root_hash
    assert there.broken_trails == back.broken_trails


FULL = """
import resource, signal, sys
from agentos_store.errors import UnavailableError
from agentos_store.operations.moving.copying import copy_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source, target, size = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
try:
    copy_store(source, target)
except UnavailableError as error:
    print(error.code)
"""


def test_a_copy_onto_a_full_disk_goes_on_when_there_is_room(source: str, tmp_path: Path, sqlite_template: Path) -> None:
    with Store.open(source) as store:
        for number in range(6):
            store.tasks.create(title=f"{number}", payload="x" * 600_000)
    target = Path(shutil.copy(sqlite_template, tmp_path / "target.sqlite"))
    size = target.stat().st_size + 1_500_000
    command = [sys.executable, "-c", FULL, source, f"sqlite:///{target}", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("SQLITE_FULL", "SQLITE_IOERR"))
    with pytest.raises(SchemaMismatchError, match="unfinished"):
        Store.open(f"sqlite:///{target}")
    assert copy_store(source, f"sqlite:///{target}").resumed
    assert compare_stores(source, f"sqlite:///{target}").ok


GROWTH = """
import resource, sys
from agentos_store.operations.moving.copying import compare_stores, copy_store
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
copy_store(sys.argv[1], sys.argv[3])
before = peak()
copy_store(sys.argv[2], sys.argv[4], progress=None)
print(peak() - before)
"""


@pytest.mark.parametrize("backend", ["postgresql"])
def test_memory_does_not_grow_with_what_is_copied(source: str, sqlite_template: Path, tmp_path: Path, url: str) -> None:
    large = Path(shutil.copy(sqlite_template, tmp_path / "large.sqlite"))
    with Store.open(f"sqlite:///{large}") as store:
        for number in range(12):
            store.tasks.create(title=f"{number}", payload="x" * 1_500_000)
    arguments = [source, f"sqlite:///{large}", f"sqlite:///{tmp_path}/small.sqlite", url]
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 16


def test_the_mark_is_of_a_revision_that_no_code_knows() -> None:
    assert UNFINISHED not in known()
    # So older code, which does not know the mark, takes the database for a newer one.
    assert UNFINISHED > HEAD
