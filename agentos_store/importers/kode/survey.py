"""What an agent's folder holds: which of its files are what, and which are none of KODE's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentos_store.importers.kode.events import CHANNELS
from agentos_store.importers.kode.events import KIND as EVENTS
from agentos_store.importers.kode.files import Entry, Refused, Tree
from agentos_store.importers.kode.item import Findings

META: Final = "meta.json"
PARTS: Final = frozenset({"runtime", "events", "history", "snapshots"})
"""Folders of an agent that hold its data; any other may be an agent of its own."""

AGENTS: Final = "agents"
MESSAGES: Final = "messages"
CALLS: Final = "tool_calls"
SNAPSHOTS: Final = "snapshots"
DOCUMENTS: Final = {
    "todos": "todos",
    "media_cache": "media_caches",
    "history_window": "history_windows",
    "compression": "compressions",
    "recovered_file": "recovered_files",
}
"""What reports call each kind of document."""

_HISTORY: Final = {
    "windows": ("history_window", ".json"),
    "compressions": ("compression", ".json"),
    "recovered": ("recovered_file", ".txt"),
}
_FILES: Final = {
    META: AGENTS,
    "runtime/messages.json": MESSAGES,
    "runtime/messages.wal": MESSAGES,
    "runtime/tool-calls.json": CALLS,
    "runtime/tool-calls.wal": CALLS,
    "runtime/todos.json": "todos",
    "runtime/media-cache.json": "media_cache",
    **{f"events/{channel}.{ending}": EVENTS for channel in CHANNELS for ending in ("log", "wal")},
}
_LEFT_BEHIND: Final = (".json.tmp", ".wal.corrupted")
"""Endings of what a crash, or KODE's own recovery from one, leaves in a folder."""


class Survey:
    """An agent's files by what they are; their names are those below the agent's folder."""

    def __init__(self, tree: Tree, folder: str, entries: Sequence[Entry], findings: Findings) -> None:
        self.files: dict[str, str] = {}
        """The kind of each."""
        self.refused: set[str] = set()
        """Those that are there and may not be read."""
        self._tree = tree
        self._prefix = f"{folder}/"
        self._findings = findings
        # A folder beside the parts is looked at by whoever looks for agents.
        found = [each for each in entries if each.name in PARTS or not each.is_folder or each.refused is not None]
        while found:
            entry = found.pop()
            if entry.is_folder and entry.refused is None:
                found += self._below(entry)
            else:
                self._enter(entry)

    @property
    def is_agent(self) -> bool:
        """Whether there is anything of an agent; KODE makes empty folders for whatever it finds."""
        return bool(self.files or self.refused)

    def of(self, kind: str) -> list[str]:
        """Return the files of a kind, by name."""
        return sorted(name for name, each in self.files.items() if each == kind)

    def _below(self, folder: Entry) -> list[Entry]:
        try:
            return self._tree.entries(folder.path)
        except Refused as refused:
            self.refused.add(folder.path.removeprefix(self._prefix))
            self._findings.problem(AGENTS, folder.path, refused.reason)
            return []

    def _enter(self, entry: Entry) -> None:
        name = entry.path.removeprefix(self._prefix)
        if name.endswith(_LEFT_BEHIND):
            self._findings.ignored += 1
            return
        kind = _kind(name)
        if entry.refused is not None:
            if kind is not None or name in PARTS:
                self.refused.add(name)
            if name in PARTS:
                self._findings.problem(AGENTS, entry.path, entry.refused)
            elif kind is None:
                self._findings.stray(entry.path, entry.refused)
            else:
                self._findings.problem(DOCUMENTS.get(kind, kind), entry.path, entry.refused)
        elif kind is None:
            self._findings.stray(entry.path, "it is no part of a KODE store")
        else:
            self.files[name] = kind


def _kind(name: str) -> str | None:
    if (kind := _FILES.get(name)) is not None:
        return kind
    part, _, rest = name.partition("/")
    if part == "snapshots" and rest.endswith(".json") and rest != ".json":
        return SNAPSHOTS
    folder, _, file = rest.partition("/")
    if part == "history" and folder in _HISTORY and "/" not in file:
        kind, ending = _HISTORY[folder]
        return kind if file.endswith(ending) and file != ending else None
    return None
