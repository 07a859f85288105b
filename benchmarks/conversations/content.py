"""What every contestant says in a conversation, and what it writes beside it so that it is found again."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import rows
from benchmarks.measure import NotHonestError

SESSION = "01CONVERSATION000000000000"
"""The session that is written to and read, in every database."""
USER = "01USER00000000000000000000"

SENTENCES = (
    "The tests of the parser fail on the second file since yesterday; 只有第二个文件出错。 Please find out why, "
    "and tell me what you would change before you change it."
)
MESSAGE: Mapping[str, Any] = {"role": "user", "content": SENTENCES, "token_count": 42}
"""The one that is appended alone."""
ITS_TYPES = 1

TURN: Sequence[Mapping[str, Any]] = (
    MESSAGE,
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I run the tests first."},
            {"type": "tool_use", "id": "call_7", "name": "shell", "input": {"command": ["make", "test"], "wait": 12.5}},
        ],
        "token_count": 42,
    },
    {
        "role": "tool",
        "content": "1 failed, 41 passed: 解析器 " + "." * 200,
        "tool_call_id": "call_7",
        "token_count": 42,
    },
    {"role": "assistant", "content": [{"type": "text", "text": SENTENCES}], "token_count": 42},
    {"role": "user", "content": "谢谢!", "token_count": 42},
)
FOUND_BY: Sequence[tuple[int, list[str] | None]] = ((1, None), (3, ["shell"]), (5, None), (1, None), (1, None))
"""The types of content of each, as bits, and the tools that it calls."""
FOUND_BY_TEXT = tuple((types, None if tools is None else rows.compact(tools)) for types, tools in FOUND_BY)
TOKENS = 42
"""What each counts for."""

MANY = 100
LAST = 50
LATEST = 20
LONG, LONGEST = 10_000, 100_000
"""Messages of a long conversation."""
SESSIONS = 5_000
"""Sessions of a user."""


def conversation(length: int) -> list[Mapping[str, Any]]:
    """Return so many messages."""
    return list(itertools.islice(itertools.cycle(TURN), length))


def found_by(place: int) -> tuple[int, list[str] | None]:
    """Return the types and the tools of the message at this place of a conversation."""
    return FOUND_BY[place % len(FOUND_BY)]


def found_by_text(place: int) -> tuple[int, str | None]:
    """Return the same as it is written."""
    return FOUND_BY_TEXT[place % len(FOUND_BY_TEXT)]


def written_key(message: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a message from another, as it is stored."""
    return message["role"], rows.compact(message["content"]), message.get("tool_call_id")


def expect_same(there: Sequence[Any], given: Sequence[Any]) -> None:
    """See that what is there is how the given conversation begins."""
    if len(there) >= len(given) or list(there) != given[: len(there)]:
        raise NotHonestError("the conversation is another one")


def plain(role: str, content: Any, name: str | None, tool_calls: Any, tool_call_id: str | None) -> dict[str, Any]:
    """Return a message as a language model wants it."""
    message = {"role": role, "content": content}
    if name is not None:
        message["name"] = name
    if tool_calls is not None:
        message["tool_calls"] = tool_calls
    if tool_call_id is not None:
        message["tool_call_id"] = tool_call_id
    return message


def keys() -> Iterator[str]:
    """Yield keys that nobody else has, as long as a ULID, each greater than the one before."""
    prefix = uuid.uuid4().hex[:10]
    return (f"{prefix}{number:016d}" for number in itertools.count())
