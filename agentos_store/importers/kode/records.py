"""What the reader gives: an agent and all that its folder holds, in the store's terms.

Texts hold neither U+0000 nor lone surrogates, times are aware and in UTC, enumerations have the store's words. What is
exact (``content``, ``input``, ``output``, documents) is as it was found.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Problem, Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoRecord:
    """What ``meta.json`` says about an agent."""

    template_id: str | None
    created_at: dt.datetime | None
    updated_at: dt.datetime | None
    lineage: list[str]
    """The oldest ancestor first."""
    config_version: str | None
    last_sfp_index: int
    last_bookmark: dict[str, JSON] | None
    breakpoint: str | None
    model: str | None
    metadata: dict[str, JSON]
    """The user's own, and under ``"kode"`` (or ``"kode_1"``, … if the user's own has that key) the configuration that
    KODE resumes the agent from, without its secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """A message."""

    position: int
    """In the source's list, from 0."""
    role: str
    content: JSON
    """Blocks, or a text; exact."""
    metadata: dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """A tool call; no two of an agent have the same identifier."""

    tool_call_id: str
    tool_name: str
    state: str
    input: JSON
    has_output: bool
    """Tells a result that is null (True) from no result at all (False)."""
    output: JSON
    is_error: bool | None
    """None where KODE did not say."""
    error_message: str | None
    approval: dict[str, JSON] | None
    audit_trail: list[JSON]
    created_at: dt.datetime
    updated_at: dt.datetime
    started_at: dt.datetime | None
    completed_at: dt.datetime | None
    duration_ms: float | None
    message: int | None
    """The place, among the agent's messages, of the one that made the call; None when it is no longer there."""
    ordinal: int
    """Its place among the calls of that message, or among the records where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRecord:
    """A file that KODE reads back whole."""

    kind: str
    """todos, media_cache, history_window, compression or recovered_file."""
    key: str
    content: JSON
    """A recovered file's: ``path``, ``timestamp`` and ``mtime`` in milliseconds, ``content``."""
    written_at: dt.datetime
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """What an agent's conversation was at one moment."""

    snapshot_id: str
    messages: list[MessageRecord]
    last_sfp_index: int
    last_bookmark: dict[str, JSON] | None
    metadata: dict[str, JSON]
    created_at: dt.datetime
    file: str


@dataclass(slots=True, kw_only=True)
class ChannelCounts:
    """What one channel of events holds."""

    lines: int = 0
    """Of the log, and those of the write-ahead log that the log does not hold."""
    distinct: int = 0
    """Of these, without repeats."""
    lost: int = 0
    """Lines that are no events, and files of them that cannot be read."""
    files: list[str] = field(default_factory=list)
    """The log and the write-ahead log, as far as they are there."""

    @property
    def repeated(self) -> int:
        """Lines that repeat another one exactly."""
        return self.lines - self.distinct


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event."""

    agent_id: str
    channel: str
    digest: str
    """Tells its line from every other of the channel."""
    seq: int | None
    """KODE's own number, which an agent that is resumed uses again."""
    event_type: str
    severity: str
    data: dict[str, JSON]
    """The event, exact."""
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent, and all that its folder holds."""

    agent_id: str
    parent_id: str | None
    """The agent whose folder it lies in."""
    created_at: dt.datetime
    info: InfoRecord | None
    """None when there is no ``meta.json`` that can be read."""
    messages: list[MessageRecord] | None
    """None when there are some that cannot be read, which is not the same as none."""
    calls: list[CallRecord] | None
    """None when there are some that cannot be read."""
    documents: list[DocumentRecord]
    snapshots: list[SnapshotRecord]
    """The oldest first."""
    events: dict[str, ChannelCounts]
    """By channel: progress, control, monitor; only those that there are."""
    problems: list[Problem] = field(default_factory=list)
    """Under the kind of data, with the file: what does not arrive, and why."""
    repairs: list[Repair] = field(default_factory=list)
    """The same for what arrives otherwise than it was found."""
    ignored: int = 0
    """Files that a crash left behind and that nobody needs."""
    strays: int = 0
    """Files that are none of KODE's, of which the first are among the problems."""
