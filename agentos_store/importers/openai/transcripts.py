"""Making a transcript of a record."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.jsontext import JSON, scrub
from agentos_store.importers.openai.calls import read_calls
from agentos_store.importers.openai.records import RewardedTask, Transcript, TranscriptMessage
from agentos_store.importers.problems import Repair, SetAside
from agentos_store.importers.row import add_origin
from agentos_store.importers.times import parse_time

ORIGIN_KEY: Final = "openai"
"""Where in a message's metadata stands what has no field of its own."""

TITLE_LENGTH: Final = 500

_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
_TIMES: Final = ("created_at", "created", "timestamp")


def read_transcript(place: str, key: str | None, record: JSON, messages: list[JSON], session_id: str) -> Transcript:
    """Make the transcript; ``key`` is where the messages stand in the record, None where they are all of it.

    Raises SetAside for what cannot come in whole.
    """
    read = tuple(_read_message(message, number, place) for number, message in enumerate(messages))
    others = {name: value for name, value in record.items() if name != key} if isinstance(record, dict) else {}
    clean, changed = scrub(others)
    assert isinstance(clean, dict)
    repairs = [Repair("sessions", place, "metadata: U+0000 or a lone surrogate became U+FFFD")] if changed else []
    task = _read_task(others, clean) if "reward" in others else None
    title = clean.get("title")
    title = title if isinstance(title, str) and title else None if task is None else task.title
    model = clean.get("model")
    return Transcript(
        place=place,
        session_id=session_id,
        title=title,
        model=model if isinstance(model, str) else None,
        created_at=_time(others),
        metadata=clean,
        messages=read,
        calls=read_calls(read, place),
        task=task,
        repairs=tuple(repairs),
    )


def digest(key: str | None, record: JSON) -> str:
    """Return what is the same for the same transcript and for no other: half a SHA-256, in hexadecimal digits."""
    text = json.dumps([key, record], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_message(found: JSON, number: int, place: str) -> TranscriptMessage:
    where = f"its message {number + 1}"
    if not isinstance(found, dict):
        raise SetAside(f"{where} is no object")
    role = found.get("role")
    if not isinstance(role, str) or not role:
        raise SetAside(f"{where} has no role")
    kept: dict[str, JSON] = {name: value for name, value in found.items() if name not in _FIELDS}
    # Null and not there are one to the store, and two to a reader of the transcript.
    kept |= {name: None for name in _FIELDS[2:] if name in found and found[name] is None}
    repairs: list[str] = []
    if role == "developer":
        role, kept["role"] = "system", role
        repairs.append("role: 'developer' became 'system'")
    if role not in _ROLES:
        raise SetAside(f"{where} has a role that is not known")
    tool_calls = found.get("tool_calls")
    if tool_calls is not None and not isinstance(tool_calls, list):
        raise SetAside(f"{where} has tool_calls that are no list")
    if "content" not in found:
        repairs.append("content: it was missing, so it became null")
    clean, changed = scrub(kept)
    assert isinstance(clean, dict)
    if changed:
        repairs.append("metadata: U+0000 or a lone surrogate became U+FFFD")
    return TranscriptMessage(
        role=role,
        content=found.get("content"),
        name=_text(found, "name", where),
        tool_calls=tool_calls,
        tool_call_id=_text(found, "tool_call_id", where),
        metadata=add_origin(None, ORIGIN_KEY, clean) if clean else {},
        repairs=tuple(Repair("messages", f"{place}, message {number + 1}", what) for what in repairs),
    )


def _text(found: Mapping[str, JSON], name: str, where: str) -> str | None:
    value = found.get(name)
    if value is None or isinstance(value, str):
        return value
    raise SetAside(f"{where} has a {name} that is no text")


def _read_task(others: Mapping[str, JSON], clean: Mapping[str, JSON]) -> RewardedTask:
    named = [f"{name} {clean[name]}" for name in ("task_id", "trial") if isinstance(clean.get(name), str | int)]
    title = ", ".join(("Trajectory", *named))[:TITLE_LENGTH]
    metadata = {name: value for name, value in clean.items() if name != "reward"}
    return RewardedTask(title=title, result={"reward": others["reward"]}, metadata=metadata)


def _time(others: Mapping[str, JSON]) -> dt.datetime | None:
    for name in _TIMES:
        if others.get(name) is not None:
            try:
                return parse_time(others[name])[0]
            except ValueError:
                continue
    return None
