"""The calls of tools in a transcript, each with the message that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentos_store.importers.jsontext import JSON, parse_json
from agentos_store.importers.openai.records import TranscriptCall, TranscriptMessage
from agentos_store.importers.problems import Repair, SetAside


def read_calls(messages: Sequence[TranscriptMessage], place: str) -> tuple[TranscriptCall, ...]:
    """Return the calls in their order.

    An answer belongs to the newest message before it that has an unanswered call of its name, and within that message
    to the first of them. Raises SetAside for a call without an identifier or a name.
    """
    taken: set[str] = {
        name for message in messages for call in message.tool_calls or () for name in [_identifier(call)] if name
    }
    times: dict[str, int] = {}
    calls: list[TranscriptCall] = []
    waiting: dict[str, list[int]] = {}
    for number, message in enumerate(messages):
        for ordinal, found in enumerate(message.tool_calls or ()):
            call = _read_call(found, number, ordinal)
            name = call.tool_call_id
            times[name] = times.get(name, 0) + 1
            if times[name] > 1:
                call = _renamed(call, times[name], taken, place)
            # The newest message first, and within it the first call.
            line = waiting.setdefault(name, [])
            newer = sum(calls[each].message == number for each in line)
            line.insert(newer, len(calls))
            calls.append(call)
        if message.role == "tool" and message.tool_call_id is not None and waiting.get(message.tool_call_id):
            answered = waiting[message.tool_call_id].pop(0)
            calls[answered] = replace(calls[answered], answer=number, output=message.content)
    return tuple(calls)


def _read_call(found: JSON, number: int, ordinal: int) -> TranscriptCall:
    where = f"its message {number + 1} has a tool call"
    if not isinstance(found, dict):
        raise SetAside(f"{where} that is no object")
    name = _identifier(found)
    if name is None:
        raise SetAside(f"{where} without an id")
    # OpenAI has two kinds of tools; others leave out the level between.
    inner = next((found[kind] for kind in ("function", "custom") if isinstance(found.get(kind), dict)), found)
    assert isinstance(inner, Mapping)
    tool_name = inner.get("name")
    if not isinstance(tool_name, str) or not tool_name:
        raise SetAside(f"{where} without a name")
    arguments = inner.get("arguments", inner.get("input"))
    given = arguments
    if isinstance(arguments, str) and "input" not in inner:
        try:
            given, _ = parse_json(arguments)
        except ValueError:
            given = arguments
    return TranscriptCall(
        tool_call_id=name,
        message=number,
        ordinal=ordinal,
        tool_name=tool_name,
        input=given,
        answer=None,
        output=None,
    )


def _identifier(call: JSON) -> str | None:
    name = call.get("id") if isinstance(call, dict) else None
    return name if isinstance(name, str) and name else None


def _renamed(call: TranscriptCall, time: int, taken: set[str], place: str) -> TranscriptCall:
    name = f"{call.tool_call_id}#{time}"
    while name in taken:
        time += 1
        name = f"{call.tool_call_id}#{time}"
    taken.add(name)
    what = f"tool_call_id: {call.tool_call_id!r} was there already, so it became {name!r}"
    return replace(
        call, tool_call_id=name, repairs=(Repair("tool_calls", f"{place}, message {call.message + 1}", what),)
    )
