"""What the rows of a registry may refer to: the keys of the rows that become records, by a pass over their tables."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from agentos_store.importers.agentos.shapes import KEYS, VERSION_TABLE
from agentos_store.importers.keys import KeySets
from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.row import Row, ulid_time
from agentos_store.importers.source import SourceFile
from agentos_store.importers.times import EPOCH

SESSION_TABLES: Final = ("task_sessions", "chat_sessions", "webui_sessions")
MESSAGE_TABLES: Final = ("chat_messages", "webui_messages")
ASSIGNMENTS: Final = "guardian_assignments"
PATH_BYTES: Final = 1200

_PIECE_OF_HASH: Final = re.compile("[0-9a-f]{8,64}")


class References:
    """Answers whether a project, a repository, a session or a task is among the records."""

    def __init__(self, source: SourceFile, keys: KeySets) -> None:
        self._source = source
        self.keys = keys
        self._known: set[str] = set()

    def has_project(self, project_id: str) -> bool:
        """Tell whether a record is this project."""
        return self._has("project", project_id, self._find_projects)

    def has_repo(self, project_id: str, repo_id: str) -> bool:
        """Tell whether a record is this repository of this project."""
        return self._has("repo", pair(project_id, repo_id), self._find_repos)

    def has_session(self, session_id: str) -> bool:
        """Tell whether a record is this session."""
        return self._has("session", session_id, self._find_sessions)

    def has_task(self, task_id: str) -> bool:
        """Tell whether a record is this task."""
        return self._has("task", task_id, self._find_tasks)

    def project_of_repo(self, repo_id: str) -> str | None:
        """Return the project that this is, or that has this repository, or whose path has this hash; None for none.

        AgentOS's knowledge names repositories by a piece of a hash.
        """
        if self.has_project(repo_id):
            return repo_id
        if repo_id in self._owners:
            return self._owners[repo_id]
        if not _PIECE_OF_HASH.fullmatch(repo_id):
            return None
        return next((project for digest, project in self._digests if digest.startswith(repo_id)), None)

    def has_source(self, source_id: str) -> bool:
        """Tell whether a record is this source of knowledge."""
        return self._has("source", source_id, self._find_sources)

    def chunk(self, chunk_id: str) -> Row | None:
        """Return the row of this chunk, if it is a record's."""
        for rowid in self._places("chunk", chunk_id, self._find_chunks)[:1]:
            return self.found("kb_chunks", rowid)
        return None

    def session_places(self, session_id: str) -> list[tuple[str, int]]:
        """Return the table and row number of each row of this session."""
        self.has_session(session_id)
        return list(self.keys.places("session", session_id))

    def session_created_at(self, session_id: str) -> dt.datetime:
        """Return when the first row of this session says that it began, or else the time around."""
        for table, rowid in self.session_places(session_id)[:1]:
            row = self.found(table, rowid)
            if row is not None:
                return row.first_time("created_at", otherwise=ulid_time(session_id) or self.around)
        return self.around

    def dependency_places(self, task_id: str, depends_on_task_id: str) -> list[int]:
        """Return the number of each row that links these two tasks."""
        return self._places("dependency", pair(task_id, depends_on_task_id), self._find_dependencies)

    def scope_places(self, task_id: str, repo_id: str) -> list[int]:
        """Return the number of each row about this task and repository."""
        return self._places("scope", pair(task_id, repo_id), self._find_scopes)

    def assignment(self, assignment_id: str) -> Row | None:
        """Return the assignment that a verdict names, or None."""
        for rowid in self._places("assignment", assignment_id, self._find_assignments):
            found = self._source.row(ASSIGNMENTS, rowid)
            if found is not None:
                return Row(found, KEYS[ASSIGNMENTS])
        return None

    def found(self, table: str, rowid: int) -> Row | None:
        """Return one row, or None when there is none that can be read."""
        found = self._source.row(table, rowid)
        return None if found is None else Row(found, KEYS.get(table))

    @functools.cached_property
    def around(self) -> dt.datetime:
        """The time for rows that tell of none: when the registry got its last version, the same in each run."""
        moments = [row.time("applied_at") for row in self._rows(VERSION_TABLE)]
        return max((moment for moment in moments if moment is not None), default=EPOCH)

    @functools.cached_property
    def _owners(self) -> dict[str, str]:
        """The project of each repository; the first one's, where several have a repository of the same name."""
        owners: dict[str, str] = {}
        for row, repo_id in self._identified("project_repos"):
            project_id = row.text("project_id")
            if project_id and self.has_project(project_id):
                owners.setdefault(repo_id, project_id)
        return owners

    @functools.cached_property
    def _digests(self) -> list[tuple[str, str]]:
        """Hashes of the projects' paths, with the projects."""
        return [
            (hashlib.new(name, path.encode(), usedforsecurity=False).hexdigest(), project_id)
            for row, project_id in self._identified("projects")
            if (path := row.text("path"))
            for name in ("sha256", "sha1", "md5")
        ]

    def _has(self, kind: str, key: str, find: Callable[[], None]) -> bool:
        if kind not in self._known:
            find()
            self._known.add(kind)
        return self.keys.has(kind, key)

    def _places(self, kind: str, key: str, find: Callable[[], None]) -> list[int]:
        if kind not in self._known:
            find()
            self._known.add(kind)
        return [rowid for _, rowid in self.keys.places(kind, key)]

    def _rows(self, table: str) -> Iterator[Row]:
        for found in self._source.rows(table):
            if not isinstance(found, Problem):
                yield Row(found, KEYS.get(table))

    def _identified(self, table: str) -> Iterator[tuple[Row, str]]:
        for row in self._rows(table):
            try:
                yield row, row.identifier(KEYS[table])
            except SetAside:
                continue

    def _find_projects(self) -> None:
        for _, project_id in self._identified("projects"):
            self.keys.add("project", project_id)

    def _find_repos(self) -> None:
        for row, repo_id in self._identified("project_repos"):
            project_id = row.text("project_id")
            if project_id and self.has_project(project_id):
                self.keys.add("repo", pair(project_id, repo_id))

    def _find_sessions(self) -> None:
        for table in SESSION_TABLES:
            for row, session_id in self._identified(table):
                self.keys.add("session", session_id)
                self.keys.stand("session", session_id, table, row.rowid)

    def _find_tasks(self) -> None:
        for _, task_id in self._identified("tasks"):
            self.keys.add("task", task_id)

    def _find_dependencies(self) -> None:
        self._find_pairs("dependency", "task_dependency", "task_id", "depends_on_task_id")

    def _find_scopes(self) -> None:
        self._find_pairs("scope", "task_repo_scope", "task_id", "repo_id")

    def _find_pairs(self, kind: str, table: str, first: str, second: str) -> None:
        for row in self._rows(table):
            ends = row.text(first), row.text(second)
            if ends[0] and ends[1]:
                self.keys.stand(kind, pair(ends[0], ends[1]), table, row.rowid)

    def _find_sources(self) -> None:
        for row, source_id in self._identified("kb_sources"):
            with suppress(SetAside):
                path_of(row)
                self.keys.add("source", source_id)

    def _find_chunks(self) -> None:
        for row, chunk_id in self._identified("kb_chunks"):
            source_id = row.text("source_id")
            if source_id and self.has_source(source_id) and row.text("content"):
                self.keys.stand("chunk", chunk_id, row.table, row.rowid)

    def _find_assignments(self) -> None:
        for row, assignment_id in self._identified(ASSIGNMENTS):
            self.keys.stand("assignment", assignment_id, ASSIGNMENTS, row.rowid)


def path_of(row: Row) -> str:
    """Return the path of a source of knowledge, from either shape; set the row aside when it has none."""
    path = row.text("path" if row.has_column("path") else "source_path")
    if not path:
        raise SetAside("it has no path")
    if len(path.encode()) > PATH_BYTES:
        raise SetAside(f"its path is longer than {PATH_BYTES:,} bytes")
    return path


def pair(*parts: str) -> str:
    """Make one key of several texts, each with its length, so that no two lists of texts make the same."""
    return "".join(f"{len(part)}:{part}" for part in parts)
