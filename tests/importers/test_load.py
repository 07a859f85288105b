"""A registry that is imported: each row is in the store, changed by the rules alone, once, and on both databases."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import random
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, StoreError
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.agentos.loader import Loader
from agentos_store.importers.agentos.records import (
    AuditRecord,
    LineageRecord,
    ProjectRecord,
    RepoRecord,
    SessionRecord,
    TaskRecord,
)
from agentos_store.importers.agentos.registry import open_registry
from agentos_store.importers.report import ImportReport
from agentos_store.models import metadata
from agentos_store.operation import Blocking, F, Repository, reads_together
from agentos_store.testing.registries import make_registry
from tests.importers.killing import kill_after

Made = tuple[Path, dict[str, Any]]

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "agentos-registry"

STATUSES = {
    "draft": "created",
    "approved": "created",
    "orphan": "created",
    "created": "created",
    "queued": "paused",
    "running": "paused",
    "executing": "paused",
    "verifying": "paused",
    "verified": "paused",
    "zombie": "paused",
    "done": "completed",
    "succeeded": "completed",
    "blocked": "blocked",
    "failed": "failed",
    "canceled": "cancelled",
}
KEPT = {**STATUSES, "queued": "pending"} | dict.fromkeys(("running", "executing", "verifying", "verified"), "running")

ROTATED = {
    "level": "repo_id",
    "event_type": "level",
    "payload": "event_type",
    "created_at": "payload",
    "decision_id": "created_at",
    "source_event_ts": "decision_id",
    "supervisor_processed_at": "source_event_ts",
    "verdict_id": "supervisor_processed_at",
    "repo_id": "verdict_id",
}
"""The column of a value, and the one that migration 24 wrote it into."""

PREFIXES = ("GUARDIAN_VERDICT_APPLIED", "NOTE", "STATE_TRANSITION", "SUPERVISOR", "TASK_CREATED", "repo_write")

KINDS = {"projects": "projects", "repos": "repositories"} | {
    kind: kind
    for kind in (
        *("users", "sessions", "messages", "tasks", "lineage", "audits"),
        *("memory", "sources", "chunks", "embeddings"),
    )
}

Table = list[dict[str, Any]]


class Dump(Repository[F]):
    """Every row of every table."""

    name = "dump"

    @reads_together
    def all(self, session: Session) -> dict[str, Table]:
        tables = {}
        for table in metadata.sorted_tables:
            everything: Statement[Any] = Statement(select(table).order_by(*table.primary_key.columns), lasting=False)
            names = table.columns.keys()
            tables[table.name] = [dict(zip(names, row, strict=True)) for row in session.all(everything)]
        return tables


class Source:
    """A registry as it lies on disk, read by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw = path.read_bytes()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode(errors="replace")
            connection.row_factory = sqlite3.Row
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            self.tables: dict[str, Table] = {
                name: [dict(row) for row in connection.execute(f'SELECT * FROM "{name}" ORDER BY rowid')]
                for name in names
                if not name.startswith(("sqlite_", "memory_fts", "kb_fts", "kb_chunks_fts"))
            }

    def __getitem__(self, table: str) -> Table:
        return self.tables[table]

    def rotated(self) -> Table:
        return [row for row in self["task_audits"] if row["repo_id"] in {"info", "warn", "error"}]

    def task_ids(self) -> set[str]:
        return {row["task_id"] for row in self["tasks"]}

    def known(self) -> dict[str, Any]:
        """What the manifest says, where it is the sample; else the same, counted here."""
        if self.path.name == "registry-v25.sqlite":
            found: dict[str, Any] = json.loads((SAMPLE / "manifest.json").read_text())
            return found
        rotated, tasks = [row["audit_id"] for row in self.rotated()], self.task_ids()
        repos = {row["repo_id"] for row in self["project_repos"]}
        upright = [row for row in self["task_audits"] if row["audit_id"] not in rotated and row["task_id"] in tasks]
        events = {prefix: sum(row["event_type"].startswith(prefix) for row in upright) for prefix in PREFIXES} | {
            "ROTATED": len(rotated)
        }
        dangling = [row for row in self["projects"] if row["default_repo_id"] not in {None, *repos}]
        shared = [row for row in self["task_lineage"] if row["ref_id"] == "shared-requirements-doc"]
        return {
            "row_counts": {name: len(rows) for name, rows in self.tables.items()},
            "task_status_counts": Counter(row["status"] for row in self["tasks"] if row["task_id"]),
            "audit_event_prefix_counts": {prefix: count for prefix, count in events.items() if count},
            "anomalies": {
                "audits_rotated_by_v24": rotated,
                "v24_rotation_true_mapping": ROTATED,
                "orphan_task_lineage": sum(row["task_id"] not in tasks for row in self["task_lineage"]),
                "project_with_dangling_default_repo": [dangling[0]["id"], dangling[0]["default_repo_id"]],
                "audit_with_invalid_json": [
                    row["audit_id"] for row in upright if row["payload"] and not is_json(row["payload"])
                ],
                "audit_with_null_payload": [row["audit_id"] for row in upright if row["payload"] is None],
            },
            "golden": {
                "tasks_title_contains_数据库": sum("数据库" in (row["title"] or "") for row in self["tasks"]),
                "lineage_reverse_artifact_shared-requirements-doc": len(shared),
            },
        }


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def instant(value: str | int) -> dt.datetime:
    """What a time of the source means, by its form."""
    if isinstance(value, int):
        return dt.datetime.fromtimestamp(value / 1000 if value > 10**11 else value, dt.UTC)
    time = dt.datetime.fromisoformat(value.removesuffix("Z") if "+" in value else value)
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time


def dump(store: Store) -> dict[str, Table]:
    return store.bind(Dump[Blocking]).all()


def timeless(tables: dict[str, Table]) -> dict[str, Table]:
    """The dump without what no two runs have in common: times of the run, and the numbers that databases give."""
    numbers = {
        name: {"lineage_id", "audit_id", "dependency_id", "artifact_id", "imported_at", "doc_id", "revision"}
        | {"project_repos": {"id"}, "task_repo_scope": {"scope_id"}, "kb_models": {"created_at"}}.get(name, set())
        for name in tables
    }
    plain = {
        name: [{key: value for key, value in row.items() if key not in numbers[name]} for row in rows]
        for name, rows in tables.items()
        if name != "maintenance_runs"
    }
    entries: Table = plain["import_ledger"]
    for row in entries:
        row["our_key"] = row["our_key"].rpartition(" ")[2]
    return plain


def assert_accounted(report: ImportReport) -> None:
    """Every row that was read is somewhere."""
    for counts in report.counts.values():
        assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The sample, alone in a folder; where there is none a registry that is made."""
    folder = tmp_path_factory.mktemp("sample")
    if SAMPLE.is_dir():
        return Source(Path(shutil.copyfile(SAMPLE / "registry-v25.sqlite", folder / "registry-v25.sqlite")))
    make_registry(folder / "made.sqlite", tasks=48)
    return Source(folder / "made.sqlite")


@dataclass
class Arrived:
    """A store that the registry was imported into, and how; it is only read."""

    store: Store
    report: ImportReport
    tables: dict[str, Table]
    steps: int
    """How often the import told how far it was."""


@pytest.fixture(scope="module")
def arrivals(both: list[Store], registry: Source) -> dict[str, Arrived]:
    """By database what came of an import into an empty store."""

    def work(store: Store) -> Arrived:
        steps: list[tuple[str, int, int]] = []
        report = import_registry(store, registry.path, progress=lambda *step: steps.append(step))
        return Arrived(store, report, dump(store), len(steps))

    return {name: work(store) for name, store in zip(("sqlite", "postgresql"), both, strict=True)}


@pytest.fixture
def arrived(arrivals: dict[str, Arrived], backend: str) -> Arrived:
    """The registry in a store of either database."""
    return arrivals[backend]


@pytest.fixture
def other_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """One more empty store, on SQLite."""
    path = shutil.copy(sqlite_template, tmp_path / "other.sqlite")
    with Store.open(f"sqlite:///{path}") as opened:
        yield opened


def test_what_is_known_of_the_registry_comes_out_of_the_store(arrived: Arrived, registry: Source) -> None:
    known = registry.known()
    rows, flaws, golden = known["row_counts"], known["anomalies"], known["golden"]
    store, report = arrived.store, arrived.report
    assert_accounted(report)
    status = store.status()
    lost_audits = sum(row["task_id"] not in registry.task_ids() for row in registry["task_audits"])
    if registry.path.name == "registry-v25.sqlite":
        # In the sample nothing but what lost its owner is set aside.
        orphans = {
            ("webui_messages", "its session is not in the registry"): flaws["orphan_webui_messages"],
            ("task_lineage", "its task is not in the registry"): flaws["orphan_task_lineage"],
            ("kb_chunks", "its source is not in the registry"): flaws["orphan_kb_chunks"],
            ("kb_embeddings", "its chunk is not in the registry"): flaws["orphan_chunk_embeddings"],
        }
        assert Counter((note.table, note.why) for note in report.set_aside) == orphans
        assert report.counts["messages"].imported == (
            rows["chat_messages"] + rows["webui_messages"] - flaws["orphan_webui_messages"]
        )
        sessions = rows["task_sessions"] + rows["chat_sessions"] + rows["webui_sessions"]
        expected = {"projects": rows["projects"], "project_repos": rows["project_repos"], "sessions": sessions}
        expected |= {"tasks": rows["tasks"], "task_lineage": rows["task_lineage"] - flaws["orphan_task_lineage"]}
        expected |= {"task_audits": rows["task_audits"]}
        assert {name: status.rows[name] for name in expected} == expected
        assert lost_audits == 0
    words: Counter[str] = Counter()
    for word, count in known["task_status_counts"].items():
        words[STATUSES[word.casefold()]] += count
    assert status.tasks_by_status == words
    assert flaws["v24_rotation_true_mapping"] == ROTATED
    counted = {prefix: store.audits.count(event_prefix=prefix) for prefix in PREFIXES}
    counted["ROTATED"] = store.audits.count(event_prefix="repo_commit")
    assert {name: counted.get(name) for name in known["audit_event_prefix_counts"]} == known[
        "audit_event_prefix_counts"
    ]
    shared = store.lineage.trace("shared-requirements-doc")
    assert len(shared) == golden["lineage_reverse_artifact_shared-requirements-doc"]
    titles = [task.title for task in store.tasks.iterate()]
    assert sum("数据库" in title for title in titles) == golden["tasks_title_contains_数据库"]
    project_id, gone = flaws["project_with_dangling_default_repo"]
    project = store.projects.get(project_id)
    assert (project.default_repo_id, project.settings["agentos"]) == (None, {"default_repo_id": gone})
    found = store.audits.verify()
    assert (found.ok, found.entries) == (True, rows["task_audits"] - lost_audits)
    assert report.not_yet == {}
    left = dict(report.no_place)
    # A guardian's assignment goes into its verdict; only those without one are left.
    left.pop("guardian_assignments", None)
    assert left == {name: rows[name] for name in left}


def test_each_row_says_what_it_said_in_the_source(arrived: Arrived, registry: Source) -> None:
    tables, flaws = arrived.tables, registry.known()["anomalies"]
    odd = {note.key for note in arrived.report.repairs}
    tasks = {row["task_id"]: row for row in tables["tasks"]}
    for there in registry["tasks"]:
        if there["task_id"] in odd or not there["task_id"]:
            continue
        here = tasks[there["task_id"]]
        assert (here["title"], here["created_by"]) == (there["title"], there["created_by"])
        ended = STATUSES[there["status"]] in {"completed", "failed", "cancelled"}
        assert here["completed_at"] == (instant(there["updated_at"]) if ended else None)
        assert here["route_plan_json"] == json.loads(there["route_plan_json"] or "null")
        assert (here["created_at"], here["updated_at"]) == (instant(there["created_at"]), instant(there["updated_at"]))
        own = {key: value for key, value in here["metadata"].items() if key != "agentos"}
        assert own == json.loads(there["metadata"] or "{}")
        if STATUSES[there["status"]] != there["status"]:
            assert here["metadata"]["agentos"]["status"] == there["status"]
    projects = {row["id"]: row for row in tables["projects"]}
    for there in registry["projects"]:
        if there["id"] not in odd:
            here = projects[there["id"]]
            assert (here["name"], here["description"]) == (there["name"], there["description"])
            # The source has its Chinese as \\uXXXX.
            assert here["tags"] == json.loads(there["tags"])
            assert here["default_repo_id"] == there["default_repo_id"]
            assert here["created_at"] == instant(there["created_at"])
    links = [row for row in registry["task_lineage"] if row["task_id"] in tasks]
    seen = {(row["task_id"], row["kind"], row["ref_id"]): row for row in tables["task_lineage"]}
    for there in reversed(links):
        here = seen[there["task_id"], there["kind"], there["ref_id"]]
        if here["phase"] == there["phase"]:
            assert here["created_at"] == instant(there["created_at"])
            assert here["metadata"] == json.loads(there["metadata"] or "{}")
    sessions = {row["id"]: row for row in tables["sessions"]}
    for there in registry["webui_sessions"]:
        if there["session_id"] not in odd:
            here = sessions[there["session_id"]]
            assert (here["channel"], here["created_at"]) == ("webui", instant(there["created_at"]))
            own = json.loads(there["metadata"] or "{}")
            assert (here["metadata"], here["user_id"]) == (own, there["user_id"])
    audits = {
        int(row["source_key"].rpartition("/")[2]): row for row in tables["import_ledger"] if row["kind"] == "audit"
    }
    entries = {row["audit_id"]: row for row in tables["task_audits"]}
    for there in registry["task_audits"]:
        number = there["audit_id"]
        if there["task_id"] not in tasks:
            continue
        here = entries[int(audits[number]["our_key"].partition(" ")[0])]
        if number in flaws["audits_rotated_by_v24"]:
            said = {**there, **{column: there[place] for column, place in ROTATED.items()}}
        elif str(number) in odd:
            continue
        else:
            said = there
        assert (here["task_id"], here["event_type"]) == (said["task_id"], said["event_type"])
        assert here["level"] == {"warn": "warning"}.get(said["level"], said["level"])
        assert (here["repo_id"], here["verdict_id"]) == (said["repo_id"], said["verdict_id"])
        assert here["decision_id"] == said["decision_id"]
        assert here["payload"] == (None if said["payload"] is None else json.loads(said["payload"]))
        for column in ("created_at", "source_event_ts", "supervisor_processed_at"):
            assert here[column] == (None if said[column] is None else instant(said[column]))
    for number in flaws["audit_with_invalid_json"]:
        text = next(row["payload"] for row in registry["task_audits"] if row["audit_id"] == number)
        assert entries[int(audits[number]["our_key"].partition(" ")[0])]["payload"] == {"unparsed": text}
    for number in flaws["audit_with_null_payload"]:
        assert entries[int(audits[number]["our_key"].partition(" ")[0])]["payload"] is None


def test_the_source_stays_as_it_is_and_a_second_run_changes_nothing_at_all(arrived: Arrived, registry: Source) -> None:
    first = arrived.report
    second = import_registry(arrived.store, registry.path)
    assert dump(arrived.store) == arrived.tables
    assert second.imported == 0
    assert {kind: counts.imported for kind, counts in first.counts.items()} == {
        kind: counts.repeated for kind, counts in second.counts.items()
    }
    assert first.set_aside == second.set_aside
    assert_accounted(second)
    assert registry.path.read_bytes() == registry.raw
    assert list(registry.path.parent.iterdir()) == [registry.path]


def test_both_databases_get_equal_rows(arrivals: dict[str, Arrived]) -> None:
    sqlite, postgresql = arrivals["sqlite"], arrivals["postgresql"]
    assert sqlite.report == postgresql.report
    assert timeless(sqlite.tables) == timeless(postgresql.tables)


KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "3"))


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(
    store: Store, url: str, registry: Source, arrivals: dict[str, Arrived]
) -> None:
    chance = random.Random(6)
    undisturbed = arrivals["sqlite"]
    for moment in sorted(chance.sample(range(undisturbed.steps), KILLS)):
        kill_after(import_registry, url, registry.path, moment, chance.uniform(0, 0.01))
    import_registry(store, registry.path)
    assert timeless(dump(store)) == timeless(undisturbed.tables)
    assert store.audits.verify().ok


def test_keep_status_lets_tasks_wait_and_run(store: Store, registry: Source) -> None:
    import_registry(store, registry.path, keep_status=True)
    words = Counter(KEPT[str(row["status"]).casefold()] for row in registry["tasks"] if row["task_id"])
    assert store.status().tasks_by_status == words
    # It decides about tasks that arrive, not about those that are there.
    assert import_registry(store, registry.path).imported == 0
    assert store.status().tasks_by_status == words


def test_registries_of_both_shapes_arrive_with_every_flaw(store: Store, made: Made) -> None:
    path, manifest = made
    report = import_registry(store, path)
    assert_accounted(report)
    for name, kind in KINDS.items():
        counts, expected = report.counts[kind], manifest["expected"][name]
        assert (counts.read, counts.imported, counts.set_aside, counts.merged) == (
            expected["rows"],
            expected["imported"],
            expected["set_aside"],
            expected["merged"],
        ), kind
        assert counts.repaired == expected["repaired"], kind
    assert len(report.set_aside) == sum(expected["set_aside"] for expected in manifest["expected"].values())
    assert store.audits.verify().ok
    for task_id in manifest["task_ids"]:
        assert store.tasks.exists(task_id)
    tables = dump(store)
    assert import_registry(store, path).imported == 0
    assert dump(store) == tables


def test_what_the_store_has_already_stays_as_it_is(store: Store, made: Made) -> None:
    path, manifest = made
    source = Source(path)
    decided = next(row for row in source["task_audits"] if row["decision_id"] and row["task_id"] in source.task_ids())
    mine = store.projects.create(id="mine", path="/mine", name="Web Shop — 商城")
    task = store.tasks.create(task_id=manifest["task_ids"][0], title="Mine")
    audit = store.audits.record(task.task_id, event_type="mine", decision_id=decided["decision_id"])
    store.audits.record(task.task_id, event_type="mine", decision_id="rotated_1")
    report = import_registry(store, path)
    assert_accounted(report)
    assert store.projects.get("mine").to_dict() == mine.to_dict()
    assert store.tasks.get(task.task_id).to_dict() == task.to_dict()
    assert audit is not None
    assert store.audits.get(audit.audit_id).to_dict() == audit.to_dict()
    assert store.projects.get("web-shop").name == "Web Shop — 商城 (web-shop)"
    assert report.counts["tasks"].repeated == 1
    rotated = next(str(row["audit_id"]) for row in source.rotated() if row["created_at"] == "rotated_1")
    assert [note.key for note in report.set_aside if "decision" in note.why] == [str(decided["audit_id"]), rotated]
    # What did not come in was not repaired either.
    assert rotated not in {note.key for note in report.repairs if note.table == "task_audits"}
    assert [note.key for note in report.repairs if note.table == "projects" and "Web Shop" in note.why] == [
        "web-shop",
        "web-shop-2",
    ]
    # The chain goes on from the entry that was there.
    assert store.audits.verify().ok
    tables = dump(store)
    again = import_registry(store, path)
    assert (again.imported, dump(store)) == (0, tables)


def test_two_imports_at_once_leave_what_one_would_have(
    store: Store, url: str, registry: Source, arrivals: dict[str, Arrived]
) -> None:
    refused: list[ConflictError] = []

    def run() -> None:
        with Store.open(url) as own:
            try:
                import_registry(own, registry.path)
            except ConflictError as error:
                refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) < len(threads)
    import_registry(store, registry.path)
    mixed, alone = timeless(dump(store)), timeless(arrivals["sqlite"].tables)
    # Which task's entries came first is not decided, only the order within each task's chain.
    for tables in (mixed, alone):
        tables["task_audits"].sort(key=lambda row: str(row["row_hash"]))
        tables["task_lineage"].sort(key=lambda row: str((row["task_id"], row["kind"], row["ref_id"])))
        tables["project_repos"].sort(key=lambda row: str(row["repo_id"]))
        tables["search_documents"].sort(key=lambda row: str((row["kind"], row["key"], row["part"])))
    assert mixed == alone


def test_a_value_that_the_store_refuses_sets_its_row_aside_and_no_other(store: Store, registry: Source) -> None:
    with open_registry(registry.path) as opened:
        project = first(opened.projects(), ProjectRecord)
        repo = next(each for each in opened.repos() if isinstance(each, RepoRecord) and each.project_id == project.id)
        session = first(opened.sessions(), SessionRecord)
        task = first(opened.tasks(), TaskRecord)
        link = first(opened.lineage(), LineageRecord)
        audit = first(opened.audits(), AuditRecord)
    loader = store.bind(Loader[Blocking])
    outcome = loader.projects([dataclasses.replace(project, name="n" * 501)])
    assert (outcome.imported, list(outcome.refused)) == (0, [0])
    assert outcome.refused[0].key == project.id
    assert loader.repos([repo]).refused[0].why == "its project was set aside"
    other = dataclasses.replace(session, id="other")
    outcome = loader.sessions([other, dataclasses.replace(session, channel="c" * 101)])
    assert (outcome.imported, list(outcome.refused)) == (1, [1])
    task = dataclasses.replace(task, project_id=project.id, session_id=session.id)
    outcome = loader.tasks([task])
    assert (outcome.imported, len(outcome.changed[0])) == (1, 2)
    here = store.tasks.get(task.task_id)
    assert (here.project_id, here.session_id) == (None, None)
    assert {"project_id": project.id, "session_id": session.id} in here.metadata_.values()
    links = [dataclasses.replace(link, task_id=task.task_id, ref_id=ref) for ref in ("before", "r" * 1001, "after")]
    outcome = loader.lineage([*links, dataclasses.replace(link, task_id="gone")])
    assert (outcome.imported, list(outcome.refused)) == (2, [3, 1])
    audits = [
        dataclasses.replace(audit, task_id=task.task_id, source_id=number, event_type="e" * length)
        for number, length in ((1, 255), (2, 256), (3, 1))
    ]
    outcome = loader.audits([*audits, dataclasses.replace(audit, task_id="gone")])
    assert (outcome.imported, list(outcome.refused)) == (2, [1, 3])
    assert store.audits.verify().ok


@pytest.mark.parametrize("place", range(10))
def test_a_damaged_registry_is_reported_or_refused_and_the_intact_one_comes_in_afterwards(
    place: int, other_store: Store, tmp_path: Path
) -> None:
    shape: Literal["agentos", "document"] = "document" if place % 2 else "agentos"
    intact = tmp_path / "intact.sqlite"
    make_registry(intact, shape=shape, tasks=8)
    chance = random.Random(place)
    raw = bytearray(intact.read_bytes())
    if place < 3:
        del raw[chance.randrange(100, len(raw)) :]
    else:
        for _ in range(8):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(raw)
    with suppress(StoreError):
        assert_accounted(import_registry(other_store, damaged))
    assert damaged.read_bytes() == raw
    assert_accounted(import_registry(other_store, intact))
    assert {row["task_id"] for row in Source(intact)["tasks"] if row["task_id"]} <= {
        task.task_id for task in other_store.tasks.iterate()
    }
    assert other_store.audits.verify().ok


def first(items: Iterator[Any], kind: type[Any]) -> Any:
    return next(item for item in items if isinstance(item, kind))
