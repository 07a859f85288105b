"""What a transcript becomes: a session, its messages, its tool calls, and a task with its reward."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptMessage:
    """One message; its place is that in the transcript."""

    role: str
    content: JSON
    name: str | None
    tool_calls: list[JSON] | None
    tool_call_id: str | None
    metadata: dict[str, JSON]
    """Under ``openai`` what has no field here, and the fields that said null."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptCall:
    """One call of a tool, matched with its result."""

    tool_call_id: str
    """Unique in the transcript: the second of one name has ``#2`` behind it, and so on."""
    message: int
    """The place of the message that made it."""
    ordinal: int
    tool_name: str
    input: JSON
    answer: int | None
    """The place of the message that answers it; None for a call that nobody answered."""
    output: JSON
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardedTask:
    """What the transcript was an attempt at, and what it was worth."""

    title: str
    result: dict[str, JSON]
    metadata: dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One conversation."""

    place: str
    session_id: str
    """Made of the content, so that the same transcript has the same one wherever it stands."""
    title: str | None
    model: str | None
    created_at: dt.datetime | None
    """None where the record does not tell; it is then the time of the import."""
    metadata: dict[str, JSON]
    """The other fields of the record."""
    messages: tuple[TranscriptMessage, ...]
    calls: tuple[TranscriptCall, ...]
    task: RewardedTask | None
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True)
class LostTranscript:
    """A record that does not come in."""

    place: str
    reason: str
    messages: int = 0
    """How many messages it has, as far as that is known."""
