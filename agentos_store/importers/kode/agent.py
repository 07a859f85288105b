"""One agent's folder, read whole."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import Final

from agentos_store.importers.jsontext import JSON, UNSTORABLE
from agentos_store.importers.kode.calls import read_calls
from agentos_store.importers.kode.events import CHANNELS, count_channel
from agentos_store.importers.kode.files import Entry, Gone, Refused, Tree, shown
from agentos_store.importers.kode.info import read_info
from agentos_store.importers.kode.item import CONTROL, KEY_LENGTH, Findings, Item, moment_of
from agentos_store.importers.kode.json_files import is_deeper, parse_file
from agentos_store.importers.kode.messages import Shared, places_of_calls, read_messages
from agentos_store.importers.kode.records import (
    AgentRecord,
    CallRecord,
    ChannelCounts,
    DocumentRecord,
    InfoRecord,
    MessageRecord,
    SnapshotRecord,
)
from agentos_store.importers.kode.survey import AGENTS, CALLS, DOCUMENTS, MESSAGES, META, SNAPSHOTS, Survey
from agentos_store.importers.problems import SetAside
from agentos_store.importers.times import EPOCH

ONLY: Final = "main"
"""The key of a document that is the only one of its kind."""

_SINGLE: Final = frozenset({"todos", "media_cache"})
_MILLISECONDS: Final = re.compile("(?<![0-9])[0-9]{12,14}(?![0-9])")
"""What KODE puts into the names of forks, windows, compressions and recovered files."""
_HEADER: Final = re.compile(
    rb"# Recovered: (?P<path>[^\n]*)\n# Timestamp: (?P<timestamp>[0-9]{1,15}(?:\.[0-9]{1,9})?)\n"
    rb"# Mtime: (?P<mtime>[0-9]{1,15}(?:\.[0-9]{1,9})?)\n\n"
)


class AgentReader:
    """Reads one agent's folder; a file that is bad spoils nothing but itself."""

    def __init__(self, tree: Tree, agent_id: str, entries: Sequence[Entry]) -> None:
        self._tree = tree
        self._agent_id = agent_id
        self.findings = Findings()
        """What there is to say about the folder."""
        self._survey = Survey(tree, agent_id, entries, self.findings)

    @property
    def is_agent(self) -> bool:
        """Whether the folder is an agent's, and not an empty one."""
        return self._survey.is_agent

    def read(self, parent_id: str | None, *, keep_secrets: bool) -> AgentRecord:
        """Read everything."""
        info = self._info(keep_secrets=keep_secrets)
        raw_calls = self._written_ahead("tool-calls", CALLS)
        created_at = info.created_at if info is not None else None
        if created_at is None:
            created_at = self._guess(raw_calls or [])
            self.findings.repaired(AGENTS, self._path(META), "createdAt: it is missing, so another time was taken")
        messages = self._messages()
        calls: list[CallRecord] | None = None
        if raw_calls is not None:
            places, file = places_of_calls(messages or []), self._path("runtime/tool-calls")
            calls = read_calls(raw_calls, places, self.findings, file, otherwise=created_at)
        documents = [record for kind in DOCUMENTS for record in self._documents(kind, created_at)]
        snapshots = sorted(
            self._snapshots(created_at, messages or []), key=lambda each: (each.created_at, each.snapshot_id)
        )
        return AgentRecord(
            agent_id=self._agent_id,
            parent_id=parent_id,
            created_at=created_at,
            info=info,
            messages=messages,
            calls=calls,
            documents=documents,
            snapshots=snapshots,
            events=self._events(),
            problems=self.findings.problems,
            repairs=self.findings.repairs,
            ignored=self.findings.ignored,
            strays=self.findings.strays,
        )

    def _info(self, *, keep_secrets: bool) -> InfoRecord | None:
        if META not in self._survey.files:
            if META not in self._survey.refused:
                self.findings.repaired(AGENTS, self._path(META), "it is missing; the agent comes in without it")
            return None
        file = self._path(META)
        try:
            value = self._json(META, AGENTS)
            return read_info(value, self._agent_id, self.findings, file, keep_secrets=keep_secrets)
        except (Refused, SetAside) as fault:
            self.findings.repaired(AGENTS, file, f"{fault.reason}; the agent comes in without it")
            return None

    def _messages(self) -> list[MessageRecord] | None:
        values = self._written_ahead("messages", MESSAGES)
        if values is None:
            return None
        return read_messages(values, self.findings, MESSAGES, self._path("runtime/messages"))

    def _written_ahead(self, stem: str, kind: str) -> list[JSON] | None:
        """Return a list that KODE writes ahead; an empty one when there is none, None when it cannot be read.

        A ``.wal`` that is whole is newer than the ``.json``.
        """
        ahead, plain = f"runtime/{stem}.wal", f"runtime/{stem}.json"
        there = self._survey.files
        torn: str | None = None
        was_moved = False
        if ahead in there:
            try:
                value = self._json(ahead, kind)
                return _as_list(value.get("data") if isinstance(value, dict) else None, "it holds no list as its data")
            except Gone:
                # KODE has put the list in its place meanwhile.
                was_moved = True
            except Refused as refused:
                torn = refused.reason
        if plain not in there and not was_moved:
            if torn is not None:
                self.findings.problem(kind, self._path(ahead), torn)
            is_lost = torn is not None or not self._survey.refused.isdisjoint({ahead, plain, "runtime"})
            return None if is_lost else []
        try:
            values = _as_list(self._json(plain, kind), "it is no list")
        except Refused as refused:
            self.findings.problem(kind, self._path(plain), refused.reason)
            if torn is not None:
                self.findings.problem(kind, self._path(ahead), torn)
            return None
        if torn is not None:
            self.findings.repaired(kind, self._path(ahead), f"{torn}; {stem}.json counts")
        return values

    def _documents(self, kind: str, otherwise: dt.datetime) -> Iterator[DocumentRecord]:
        called = DOCUMENTS[kind]
        for name in self._survey.of(kind):
            file = self._path(name)
            stem, _, _ = name.rpartition("/")[2].rpartition(".")
            try:
                content = self._recovered(name) if kind == "recovered_file" else self._document(name, kind)
                key = ONLY if kind in _SINGLE else self._key(stem, called, file)
            except (Refused, SetAside) as fault:
                self.findings.problem(called, file, fault.reason)
                continue
            written_at = _own_time(content) or _time_in(stem) or otherwise
            yield DocumentRecord(kind=kind, key=key, content=content, written_at=written_at, file=shown(file))

    def _document(self, name: str, kind: str) -> JSON:
        content = self._json(name, DOCUMENTS[kind])
        if not isinstance(content, list if kind == "media_cache" else dict):
            raise SetAside("it is no JSON " + ("list" if kind == "media_cache" else "object"))
        if is_deeper(content):
            raise SetAside("it is nested too deep")
        return content

    def _recovered(self, name: str) -> JSON:
        called = DOCUMENTS["recovered_file"]
        content = self._tree.read(self._path(name))
        header = _HEADER.match(content)
        if header is None:
            self.findings.repaired(called, self._path(name), "its head is not what KODE writes; all of it is kept")
        body = content[header.end() :] if header is not None else content
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = body.decode("utf-8", "replace")
            self.findings.repaired(called, self._path(name), "bytes that are no UTF-8 became U+FFFD, as in KODE")
        if header is None:
            return {"content": text}
        return {
            "path": header["path"].decode("utf-8", "replace"),
            "timestamp": _number(header["timestamp"]),
            "mtime": _number(header["mtime"]),
            "content": text,
        }

    def _snapshots(self, otherwise: dt.datetime, current: list[MessageRecord]) -> Iterator[SnapshotRecord]:
        shared = Shared(current)
        for name in self._survey.of(SNAPSHOTS):
            file = self._path(name)
            try:
                snapshot_id = self._key(name.removeprefix("snapshots/").removesuffix(".json"), SNAPSHOTS, file)
                item = Item(self._json(name, SNAPSHOTS), self.findings, SNAPSHOTS, file)
                messages = _as_list(item.value.get("messages"), "it has no list of messages")
            except (Refused, SetAside) as fault:
                self.findings.problem(SNAPSHOTS, file, fault.reason)
                continue
            if item.value.get("id") not in (snapshot_id, None):
                item.repaired("id: it is another one, so the file's name counts")
            created_at = item.time("createdAt")
            if created_at is None:
                item.repaired("createdAt: it is missing, so the agent's was taken")
            yield SnapshotRecord(
                snapshot_id=snapshot_id,
                messages=shared.in_place_of(read_messages(messages, self.findings, SNAPSHOTS, file)),
                last_sfp_index=item.count("lastSfpIndex", -1, -1),
                last_bookmark=item.object("lastBookmark"),
                metadata=item.object("metadata") or {},
                created_at=created_at or otherwise,
                file=shown(file),
            )

    def _events(self) -> dict[str, ChannelCounts]:
        present = {name.removeprefix("events/") for name in self._survey.files if name.startswith("events/")}
        return {
            channel: count_channel(self._tree, self._path("events"), channel, present, self.findings)
            for channel in CHANNELS
            if not present.isdisjoint({f"{channel}.log", f"{channel}.wal"})
        }

    def _guess(self, raw_calls: list[JSON]) -> dt.datetime:
        """Return a time for an agent that does not tell its own: the earliest that its folder tells."""
        if (forked := _time_in(self._agent_id.rpartition("/")[2])) is not None:
            return forked
        times = [moment_of(call.get("createdAt")) for call in raw_calls if isinstance(call, dict)]
        times += [_time_in(name.rpartition("/")[2]) for name in self._survey.files if name.startswith("history/")]
        known = [moment for moment in times if moment is not None]
        if known:
            return min(known)
        changed = self._tree.oldest_change(self._path(name) for name in self._survey.files)
        return (moment_of(changed * 1000) if changed is not None else None) or EPOCH

    def _json(self, name: str, kind: str) -> JSON:
        read = parse_file(self._tree.read(self._path(name)))
        for what in read.repairs:
            self.findings.repaired(kind, self._path(name), what)
        return read.value

    def _key(self, key: str, kind: str, file: str) -> str:
        """Return a name as a key of the store: odd bytes become U+FFFD."""
        clean = CONTROL.sub("\ufffd", UNSTORABLE.sub("\ufffd", key))
        if len(clean) > KEY_LENGTH:
            raise SetAside(f"its name is longer than {KEY_LENGTH} characters")
        if clean != key:
            self.findings.repaired(kind, file, "its name: bytes that are no text became U+FFFD")
        return clean

    def _path(self, name: str) -> str:
        return f"{self._agent_id}/{name}"


def _as_list(value: JSON, otherwise: str) -> list[JSON]:
    if not isinstance(value, list):
        raise Refused(otherwise)
    return value


def _own_time(content: JSON) -> dt.datetime | None:
    """Return when a document was last written, as far as it tells; a list was written when its newest entry was."""
    if isinstance(content, dict):
        return moment_of(content.get("updatedAt")) or moment_of(content.get("timestamp"))
    entries = content if isinstance(content, list) else []
    times = [moment_of(entry.get("createdAt")) for entry in entries if isinstance(entry, dict)]
    return max((moment for moment in times if moment is not None), default=None)


def _time_in(name: str) -> dt.datetime | None:
    found = _MILLISECONDS.findall(name)
    return moment_of(int(found[-1])) if found else None


def _number(digits: bytes) -> int | float:
    return float(digits) if b"." in digits else int(digits)
