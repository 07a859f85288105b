"""Tool call records."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.item import Findings, Item, moment_of
from agentos_store.importers.kode.records import CallRecord
from agentos_store.importers.kode.survey import CALLS
from agentos_store.importers.problems import SetAside
from agentos_store.types import to_text

STATES: Final = frozenset(
    {"pending", "approval_required", "approved", "executing", "completed", "failed", "denied", "sealed"}
)

_LONGEST: Final = 255
_DECISIONS: Final = {"allow": "approved", "deny": "denied"}
_APPROVAL: Final = {"decidedBy": "by", "decidedAt": "at"}


def read_calls(
    values: list[JSON],
    places: Mapping[str, tuple[int, int]],
    findings: Findings,
    file: str,
    *,
    otherwise: dt.datetime,
) -> list[CallRecord]:
    """Make the records of a list; what is no record is noted and left out.

    Where an identifier is there twice, the second becomes ``…#2``. ``otherwise`` is the time of a call that has none.
    """
    records: list[CallRecord] = []
    taken: set[str] = set()
    for position, value in enumerate(values):
        try:
            item = Item(value, findings, CALLS, file, f"record {position}")
            record = _read(item, position, places, taken, otherwise)
        except SetAside as aside:
            findings.problem(CALLS, f"{file} record {position}", aside.reason)
        else:
            taken.add(record.tool_call_id)
            records.append(record)
    return records


def _read(
    item: Item, position: int, places: Mapping[str, tuple[int, int]], taken: set[str], otherwise: dt.datetime
) -> CallRecord:
    identifier = item.key("id")
    message, ordinal = places.get(identifier, (None, position))
    tool_call_id, number = identifier, 1
    while tool_call_id in taken:
        number += 1
        tool_call_id = f"{identifier[: _LONGEST - 1 - len(str(number))]}#{number}"
    if number > 1:
        item.repaired(f"id: another record has it, so this one's became {tool_call_id!r}")
    is_error = item.flag("isError")
    state = _state(item, is_error=is_error)
    created_at = item.time("createdAt")
    if created_at is None:
        item.repaired("createdAt: it is missing, so the agent's time was taken")
        created_at = otherwise
    error = item.exact("error")
    if error is not None and not isinstance(error, str):
        item.repaired("error: it is no text, so its JSON was taken")
    return CallRecord(
        tool_call_id=tool_call_id,
        tool_name=item.key("name"),
        state=state,
        input=item.exact("input") if "input" in item.value else {},
        has_output="result" in item.value,
        output=item.exact("result"),
        is_error=is_error,
        error_message=error if isinstance(error, str) or error is None else _dumped(error),
        approval=_approval(item),
        audit_trail=_trail(item),
        created_at=created_at,
        updated_at=max(item.time("updatedAt") or created_at, created_at),
        started_at=item.time("startedAt"),
        completed_at=item.time("completedAt"),
        duration_ms=item.milliseconds("durationMs"),
        message=message,
        ordinal=ordinal,
    )


def _state(item: Item, *, is_error: bool | None) -> str:
    found = item.value.get("state")
    word = found.strip().casefold() if isinstance(found, str) else ""
    if word in STATES:
        return word
    state = "failed" if is_error else "completed" if "result" in item.value else "pending"
    item.repaired(f"state: it is missing or unknown, so it became {state}, after the result")
    return state


def _approval(item: Item) -> dict[str, JSON] | None:
    found = item.object("approval")
    # KODE notes of every call that no approval was asked for; here that is no approval at all.
    if found is None or found == {"required": False}:
        return None
    approval: dict[str, JSON] = {}
    for name, value in found.items():
        if name == "decision" and isinstance(value, str):
            approval[name] = _DECISIONS.get(value, value)
        elif name == "decidedAt":
            moment = moment_of(value)
            approval["at"] = value if moment is None else to_text(moment)
        else:
            approval[_APPROVAL.get(name, name)] = value
    return approval


def _trail(item: Item) -> list[JSON]:
    """Return the trail: each entry's state, its time as ``at``, and whatever else KODE noted."""
    found = item.exact("auditTrail")
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        item.repaired("auditTrail: it is no list of entries, so it is left out")
        return []
    trail: list[JSON] = []
    for entry in found:
        assert isinstance(entry, dict)
        kept: dict[str, JSON] = {}
        for name, value in entry.items():
            if name == "state" and isinstance(value, str):
                kept["state"] = value.casefold()
            elif name == "timestamp":
                moment = moment_of(value)
                kept["at"] = value if moment is None else to_text(moment)
            else:
                kept[name] = value
        trail.append(kept)
    clean = item.plain("auditTrail", trail)
    assert isinstance(clean, list)
    return clean


def _dumped(error: JSON) -> str:
    return json.dumps(error, ensure_ascii=False)
