"""Messages, in a conversation or in a snapshot."""

from __future__ import annotations

import json
from typing import Final

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.item import Findings, Item, with_rest
from agentos_store.importers.kode.records import MessageRecord
from agentos_store.importers.problems import SetAside

ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_FIELDS: Final = frozenset({"role", "content", "metadata"})


def read_messages(values: list[JSON], findings: Findings, kind: str, file: str) -> list[MessageRecord]:
    """Make the records of a list; what is no message is noted and left out."""
    records: list[MessageRecord] = []
    for position, value in enumerate(values):
        try:
            records.append(_read(value, position, findings, kind, file))
        except SetAside as aside:
            findings.problem(kind, f"{file} message {position}", aside.reason)
    return records


def _read(value: JSON, position: int, findings: Findings, kind: str, file: str) -> MessageRecord:
    item = Item(value, findings, kind, file, f"message {position}")
    role = item.value.get("role")
    if not isinstance(role, str) or role.casefold() not in ROLES:
        raise SetAside("it has no role, or one that is unknown")
    if "content" not in item.value:
        raise SetAside("it has no content")
    content = item.exact("content")
    if not isinstance(content, list | str | None):
        raise SetAside("its content is neither a list of blocks nor a text")
    if isinstance(content, list) and not all(_is_block(block) for block in content):
        raise SetAside("its content holds something that is no block with a type")
    rest = {name: item.plain(name, each) for name, each in item.value.items() if name not in _FIELDS}
    return MessageRecord(
        position=position,
        role=role.casefold(),
        content=content,
        metadata=with_rest(item.object("metadata") or {}, rest),
    )


def _is_block(value: JSON) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


class Shared:
    """The records of a conversation, to be used again in its snapshots: each of them holds all that it was then."""

    def __init__(self, records: list[MessageRecord]) -> None:
        self._records = records
        self._texts: dict[int, str] = {}

    def in_place_of(self, records: list[MessageRecord]) -> list[MessageRecord]:
        """Return the records, and for each that the conversation has at the same place the conversation's own."""
        return [
            self._records[index] if index < len(self._records) and self._has(index, record) else record
            for index, record in enumerate(records)
        ]

    def _has(self, index: int, record: MessageRecord) -> bool:
        own = self._records[index]
        if own != record:
            return False
        # Equal is not the same: in Python 1, 1.0 and True are equal, and objects whatever the order of their keys.
        if index not in self._texts:
            self._texts[index] = _written(own)
        return self._texts[index] == _written(record)


def _written(record: MessageRecord) -> str:
    return _encode([record.content, record.metadata])


_encode = json.JSONEncoder(check_circular=False).encode


def places_of_calls(messages: list[MessageRecord]) -> dict[str, tuple[int, int]]:
    """Return for each tool call of a conversation its message's place in the list, and its own in the message."""
    places: dict[str, tuple[int, int]] = {}
    for index, message in enumerate(messages):
        if not isinstance(message.content, list):
            continue
        calls = [block for block in message.content if isinstance(block, dict) and block.get("type") == "tool_use"]
        for ordinal, call in enumerate(calls):
            identifier = call.get("id")
            if isinstance(identifier, str):
                places.setdefault(identifier, (index, ordinal))
    return places
