"""A KODE JSONStore directory, opened for reading: its agents, one after the other, forks after what they are of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos_store.errors import InvalidValueError, UnavailableError
from agentos_store.importers.jsontext import JSON, UNSTORABLE
from agentos_store.importers.kode.agent import AgentReader
from agentos_store.importers.kode.channels import read_events
from agentos_store.importers.kode.files import Entry, Refused, Tree
from agentos_store.importers.kode.item import CONTROL, KEY_LENGTH, Findings
from agentos_store.importers.kode.json_files import parse_file
from agentos_store.importers.kode.records import AgentRecord, EventRecord
from agentos_store.importers.kode.survey import AGENTS, META, PARTS

POOL: Final = "__pool_meta__"
"""The folder of what a pool notes of its agents when it is shut down; it is no agent."""

_MARKS: Final = frozenset({"runtime", "events"})


def open_store(path: str | os.PathLike[str], *, keep_secrets: bool = False) -> KodeStore:
    """Open a directory of KODE's JSONStore; nothing in it is ever changed.

    Secrets in the agents' configurations are read as ``[redacted]`` unless they are to be kept. Raises NotFoundError
    for a directory that is not there, InvalidValueError for what is none or is a single agent's, and UnavailableError
    when it cannot be read.
    """
    return KodeStore(Path(path), keep_secrets=keep_secrets)


@dataclass(slots=True)
class _Folder:
    path: str
    parent_id: str | None
    above: frozenset[tuple[int, int]]


class KodeStore:
    """A directory of agents. What is said of it as a whole is complete once all agents were read."""

    def __init__(self, path: Path, *, keep_secrets: bool) -> None:
        self._tree = Tree(path)
        self._keep_secrets = keep_secrets
        try:
            self._top = self._tree.entries("")
        except Refused as refused:
            raise UnavailableError(f"cannot read the folder {str(path)!r}: {refused.reason}") from None
        if any(entry.name == META and not entry.is_folder for entry in self._top):
            raise InvalidValueError("path", "it is the folder of one agent; give the one above it")
        self.total = sum(entry.is_folder and entry.name != POOL for entry in self._top)
        """Folders that may be agents, without those below them."""
        self.findings = Findings()
        """What there is to say about files that are no agent's."""
        self.shells = 0
        """Folders that look like an agent's and hold nothing of one."""
        self.pool: JSON = None
        """What the pool noted when it was shut down, None if there is nothing."""

    def agents(self) -> Iterator[AgentRecord]:
        """Give the agents by their paths, each fork after the agent that it is a fork of."""
        self.findings, self.shells, self.pool = Findings(), 0, None
        waiting = [_Folder("", None, frozenset())]
        while waiting:
            folder = waiting.pop()
            entries, above = self._entries(folder)
            parent_id, has_parts = folder.parent_id, False
            if folder.path and _looks_like_agent(entries):
                has_parts = True
                reader = AgentReader(self._tree, folder.path, entries)
                if reader.is_agent:
                    parent_id = folder.path
                    yield reader.read(folder.parent_id, keep_secrets=self._keep_secrets)
                else:
                    self.shells += 1
                    self.findings.add(reader.findings)
            else:
                self._look_around(entries, is_top=not folder.path)
            # What is put there last is read next.
            for entry in reversed(entries):
                is_other = (has_parts and entry.name in PARTS) or (not folder.path and entry.name == POOL)
                if entry.is_folder and entry.refused is None and not is_other and self._may_be_key(entry):
                    waiting.append(_Folder(entry.path, parent_id, above))

    def events(self, record: AgentRecord) -> Iterator[EventRecord]:
        """Give an agent's events in their order, of lines that are alike the first."""
        return read_events(self._tree, record)

    def _entries(self, folder: _Folder) -> tuple[list[Entry], frozenset[tuple[int, int]]]:
        try:
            identity = self._tree.identity(folder.path)
            # Links are not followed, but the same folder may be mounted below itself.
            if identity not in folder.above:
                return self._tree.entries(folder.path), folder.above | {identity}
            reason = "it is the same folder as one above it"
        except Refused as refused:
            reason = refused.reason
        self.findings.problem(AGENTS, folder.path, reason)
        return [], folder.above

    def _look_around(self, entries: list[Entry], *, is_top: bool) -> None:
        """Note what lies beside the agents, and read what the pool noted."""
        for entry in entries:
            if entry.refused is not None:
                if entry.is_folder:
                    self.findings.problem(AGENTS, entry.path, entry.refused)
                else:
                    self.findings.stray(entry.path, entry.refused)
            elif not entry.is_folder:
                self.findings.stray(entry.path, "it is no part of a KODE store")
            elif is_top and entry.name == POOL:
                self._read_pool(entry)

    def _read_pool(self, folder: Entry) -> None:
        path = f"{folder.path}/{META}"
        try:
            self.pool = parse_file(self._tree.read(path)).value
        except Refused as refused:
            self.findings.problem("pool", path, refused.reason)

    def _may_be_key(self, folder: Entry) -> bool:
        """Tell whether the folder's path can be an agent's key; note it when it cannot, with all that is below it."""
        reason = None
        if CONTROL.search(folder.path):
            reason = "its name has control characters"
        elif UNSTORABLE.search(folder.path):
            reason = "its name is no UTF-8"
        elif len(folder.path) > KEY_LENGTH:
            reason = f"its path is longer than {KEY_LENGTH} characters"
        if reason is not None:
            self.findings.problem(AGENTS, folder.path, f"{reason}, so neither it nor what is in it can be an agent")
        return reason is None


def _looks_like_agent(entries: list[Entry]) -> bool:
    return any(
        (entry.name == META and not entry.is_folder) or (entry.name in _MARKS and entry.is_folder) for entry in entries
    )
