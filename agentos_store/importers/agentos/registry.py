"""An AgentOS registry, read.

::

    with open_registry("store/registry.sqlite") as registry:
        for item in registry.tasks():
            if isinstance(item, Problem):
                ...  # a row that was set aside, or rows that cannot be read
            else:
                ...  # a TaskRecord

Each iterator may be started as often as one likes, gives the same each time, and holds one row at a time in memory;
that of the dependencies holds their tasks and links too, to find circles.
Every row of the source comes out as a record, as part of one, or as a Problem.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final, TypeVar

from agentos_store.errors import InvalidValueError, NotFoundError, SchemaMismatchError
from agentos_store.importers.agentos.audits import audit_row, read_audit
from agentos_store.importers.agentos.circles import Acyclic
from agentos_store.importers.agentos.governance import governance_row, read_inbox, read_verdict
from agentos_store.importers.agentos.knowledge_reading import KnowledgeReading
from agentos_store.importers.agentos.links import (
    DIFFERING,
    merged_dependency,
    merged_scope,
    read_artifact,
    read_dependency,
    read_scope,
)
from agentos_store.importers.agentos.messages import read_message, read_user
from agentos_store.importers.agentos.projects import read_project, read_repo
from agentos_store.importers.agentos.records import (
    ArtifactRecord,
    AuditRecord,
    DependencyRecord,
    InboxRecord,
    LineageRecord,
    ProjectRecord,
    RepoRecord,
    ScopeRecord,
    SessionRecord,
    TaskRecord,
    VerdictRecord,
)
from agentos_store.importers.agentos.references import ASSIGNMENTS, MESSAGE_TABLES, SESSION_TABLES, References, pair
from agentos_store.importers.agentos.sessions import merged, read_session
from agentos_store.importers.agentos.shapes import COLUMNS, KEYS, VERSION_TABLE, Shape, shape_of
from agentos_store.importers.agentos.tasks import read_lineage, read_task
from agentos_store.importers.keys import KeySets
from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile

T = TypeVar("T")

EXPECTED: Final = (0, 25)

_VERSION: Final = re.compile(r"v?([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?", re.IGNORECASE)


_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "projects": ("projects",),
    "repositories": ("project_repos",),
    "users": (),
    "sessions": SESSION_TABLES,
    "messages": MESSAGE_TABLES,
    "tasks": ("tasks",),
    "lineage": ("task_lineage",),
    "audits": ("task_audits",),
    "dependencies": ("task_dependency",),
    "scopes": ("task_repo_scope",),
    "artifacts": ("task_artifact_ref",),
    "verdicts": ("guardian_verdicts",),
    "inbox": ("supervisor_inbox",),
    "memory": ("memory_items",),
    "sources": ("kb_sources",),
    "chunks": ("kb_chunks",),
    "embeddings": ("kb_embeddings",),
}


def open_registry(path: str | os.PathLike[str]) -> Registry:
    """Open a registry for reading; the file stays as it is, and nothing appears beside it.

    NotFoundError: there is no such file. InvalidValueError: it is no SQLite database, damaged where all of it hangs on,
    or no registry. SchemaMismatchError: a registry of another version than 0.25. UnavailableError: the system refuses
    the file, or AgentOS keeps writing to it.
    """
    return Registry(path)


class Registry(KnowledgeReading):
    """An open registry; close it, or use it in a ``with`` block."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with ExitStack() as stack:
            self._source = stack.enter_context(SourceFile(path))
            columns = {table: frozenset(names) for table, names in self._source.tables.items()}
            if "tasks" not in columns or VERSION_TABLE not in columns:
                raise InvalidValueError("path", "it is no AgentOS registry")
            self.version = self._checked_version()
            """Of its schema: ``"0.25.0"``."""
            self.shape = shape_of(columns)
            self._references = References(self._source, stack.enter_context(KeySets()))
            self.problems = (*self._source.problems, *self._odd_columns(COLUMNS[self.shape]))
            """Of the file as a whole and of the definitions of its tables."""
            self._stack = stack.pop_all()

    def check(self) -> tuple[Problem, ...]:
        """Walk through the whole file and return what SQLite finds wrong with its structure."""
        return self._source.check()

    def has_project(self, project_id: str) -> bool:
        """Tell whether ``projects`` gives this one."""
        return self._references.has_project(project_id)

    def projects(self) -> Iterator[ProjectRecord | Problem]:
        """Give the projects."""
        keys = self._references.keys
        ids, names = keys.fresh("id"), keys.fresh("name")
        yield from self._records("projects", lambda row: read_project(row, self._references, ids, names))

    def repos(self) -> Iterator[RepoRecord | Problem]:
        """Give the repositories of the projects."""
        ids = self._references.keys.fresh("id")
        yield from self._records("project_repos", lambda row: read_repo(row, self._references, ids))

    def sessions(self) -> Iterator[SessionRecord | Problem]:
        """Give the sessions of all tables that have some; one that stands in several rows comes with the first."""
        for table in SESSION_TABLES:
            yield from self._merged_records(table, self._session)

    def users(self) -> Iterator[UserRecord | Problem]:
        """Give the users that sessions name, each with its first session; AgentOS has no table of them."""
        ids = self._references.keys.fresh("user")
        for item in self.sessions():
            if isinstance(item, Problem) or item.user_id is None:
                continue
            if self._references.keys.add(ids, item.user_id):
                yield read_user(item.user_id, item)

    def messages(self) -> Iterator[MessageRecord | Problem]:
        """Give the messages of all tables that have some, in the order in which they were written."""
        ids = self._references.keys.fresh("message")
        for table in MESSAGE_TABLES:
            yield from self._records(table, lambda row: read_message(row, self._references, ids))

    def tasks(self, *, keep_status: bool = False) -> Iterator[TaskRecord | Problem]:
        """Give the tasks.

        Those that waited or ran come paused, or with ``keep_status`` pending and running.
        """
        ids = self._references.keys.fresh("id")
        yield from self._records("tasks", lambda row: read_task(row, self._references, ids, keep_status=keep_status))

    def lineage(self) -> Iterator[LineageRecord | Problem]:
        """Give the links of the tasks, in the order in which they were recorded."""
        links = self._references.keys.fresh("link")
        before: dt.datetime | None = None

        def read(row: Row) -> LineageRecord:
            nonlocal before
            record = read_lineage(row, self._references, links, before)
            before = record.created_at
            return record

        yield from self._records("task_lineage", read)

    def audits(self) -> Iterator[AuditRecord | Problem]:
        """Give the audit trails, in the order in which they were recorded."""
        decisions = self._references.keys.fresh("decision")
        before: dt.datetime | None = None

        def read(row: Row) -> AuditRecord:
            nonlocal before
            record = read_audit(row, self._references, decisions, before)
            before = record.created_at
            return record

        yield from self._records("task_audits", read, take=audit_row)

    def dependencies(self) -> Iterator[DependencyRecord | Problem]:
        """Give what tasks depend on, in the order in which it was recorded; all rows of a pair come with its first."""
        links = Acyclic()
        refused = self._references.keys.fresh("refused")
        before: dt.datetime | None = None

        def read(row: Row) -> DependencyRecord | None:
            nonlocal before
            record = read_dependency(row, self._references, before)
            first, *others = self._references.dependency_places(record.task_id, record.depends_on_task_id)
            ends = pair(record.task_id, record.depends_on_task_id)
            if row.rowid != first:
                if self._references.keys.has(refused, ends):
                    raise SetAside("an earlier row of the same pair was set aside, for it closes a circle")
                return None
            circle = links.add(record.task_id, record.depends_on_task_id)
            if circle is not None:
                self._references.keys.add(refused, ends)
                raise SetAside(f"it closes a circle: {_way(circle)}")
            before = record.created_at
            rows = filter(None, (self._references.found(row.table, place) for place in others))
            return merged_dependency(record, [read_dependency(other, self._references, before) for other in rows])

        yield from self._merged_records("task_dependency", read)

    def scopes(self) -> Iterator[ScopeRecord | Problem]:
        """Give what tasks may touch, in the order in which it was recorded; rows that say the same come as one."""
        before: dt.datetime | None = None

        def read(row: Row) -> ScopeRecord | None:
            nonlocal before
            record = read_scope(row, self._references, before)
            first, *others = self._references.scope_places(record.task_id, record.repo_id)
            rows = [self._references.found(row.table, place) for place in (first, *others)] if others else []
            try:
                records = [read_scope(other, self._references, before) for other in rows if other is not None]
            except SetAside:
                raise SetAside(DIFFERING) from None
            if others:
                record = merged_scope(records[0], records[1:])
            if row.rowid != first:
                return None
            before = record.created_at
            return record

        yield from self._merged_records("task_repo_scope", read)

    def artifacts(self) -> Iterator[ArtifactRecord | Problem]:
        """Give what tasks made or used, in the order in which it was recorded."""
        refs = self._references.keys.fresh("ref")
        before: dt.datetime | None = None

        def read(row: Row) -> ArtifactRecord:
            nonlocal before
            record = read_artifact(row, self._references, refs, before)
            before = record.created_at
            return record

        yield from self._records("task_artifact_ref", read)

    def verdicts(self) -> Iterator[VerdictRecord | Problem]:
        """Give what guardians decided, each with the assignment that led to it."""
        ids = self._references.keys.fresh("id")
        before: dt.datetime | None = None

        def read(row: Row) -> VerdictRecord:
            nonlocal before
            record = read_verdict(row, self._references, ids, before)
            before = record.created_at
            return record

        yield from self._records("guardian_verdicts", read, take=governance_row)
        for found in self._source.rows(ASSIGNMENTS):
            if isinstance(found, Problem):
                yield found

    def inbox(self) -> Iterator[InboxRecord | Problem]:
        """Give the supervisor's events; those that were being processed wait again, for nobody here holds them."""
        ids = self._references.keys.fresh("id")
        before: dt.datetime | None = None

        def read(row: Row) -> InboxRecord:
            nonlocal before
            record = read_inbox(row, self._references, ids, before)
            before = record.created_at
            return record

        yield from self._records("supervisor_inbox", read, take=governance_row)

    def rest(self) -> Iterator[Found | Problem]:
        """Give the rows that no record has anything of, table by table, as they were found."""
        for table in self.no_place():
            yield from self._unused_assignments() if table == ASSIGNMENTS else self._source.rows(table)

    def raw(self, table: str) -> Iterator[Found | Problem]:
        """Give the rows of any table as they were found, for an export of what has no place."""
        if table not in self._source.tables:
            raise NotFoundError("table", table)
        return self._source.rows(table)

    def total(self, kind: str) -> int:
        """Return how many rows the iterator of this kind will read, for a progress bar."""
        return sum(self._source.count(table) for table in _TABLES[kind] if table in self._source.tables)

    def no_place(self) -> Mapping[str, int]:
        """Count the rows of the tables that the store has no place for.

        Of the guardians' assignments they are those that no verdict took along.
        """
        read = {VERSION_TABLE, *COLUMNS[Shape.AGENTOS]}
        counts = {table: self._source.count(table) for table in sorted(self._source.tables) if table not in read}
        unused = sum(isinstance(found, Found) for found in self._unused_assignments())
        if unused:
            counts[ASSIGNMENTS] = unused
        return dict(sorted(counts.items()))

    def _unused_assignments(self) -> Iterator[Found | Problem]:
        if ASSIGNMENTS not in self._source.tables:
            return
        keys = self._references.keys
        used = keys.fresh("assignment")
        for verdict in self.verdicts():
            if isinstance(verdict, VerdictRecord) and verdict.assignment_row is not None:
                keys.add(used, str(verdict.assignment_row))
        for found in self._source.rows(ASSIGNMENTS):
            if isinstance(found, Found) and not keys.has(used, str(found.rowid)):
                yield found
        keys.drop(used)

    def _session(self, row: Row) -> SessionRecord | None:
        record = read_session(row, self._references)
        places = self._references.session_places(record.id)
        if (row.table, row.rowid) in places[1:]:
            return None
        for table, rowid in places[1:]:
            found = self._source.row(table, rowid)
            if found is not None:
                record = merged(record, read_session(Row(found, KEYS[table]), self._references), table)
        return record

    def _checked_version(self) -> str:
        expected = ".".join(map(str, EXPECTED))
        versions: list[tuple[tuple[int, ...], str]] = []
        for found in self._source.rows(VERSION_TABLE):
            if isinstance(found, Problem):
                self._source.problems.append(found)
            elif version := _VERSION.fullmatch(Row(found, "version").word("version")):
                versions.append((tuple(int(part or 0) for part in version.groups()), version[0].removeprefix("v")))
        if not versions:
            raise SchemaMismatchError(found=None, expected=expected, why="the registry does not tell its version")
        numbers, version_text = max(versions)
        if numbers[:2] != EXPECTED:
            why = f"the registry has version {version_text}, and {expected} can be read; migrate it with AgentOS first"
            raise SchemaMismatchError(found=version_text, expected=expected, why=why)
        return version_text


def _way(circle: list[str]) -> str:
    """Return the circle as text, its middle left out where it is long."""
    return " → ".join(circle if len(circle) <= 10 else [*circle[:5], f"… {len(circle) - 10} more …", *circle[-5:]])
