from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from agentos_store import InvalidValueError, Store
from agentos_store.models import Message

SEEN = dt.datetime(2026, 10, 21, 9, 30, tzinfo=dt.UTC)
PLAIN = {"role": "user", "content": "今天天气怎么样？"}
CONVERSATION: list[dict[str, Any]] = [
    PLAIN,
    {**PLAIN, "name": "a\tb\x1f\\\"'{},NULL", "metadata": {"a": [1, None]}},
    {**PLAIN, "content": "\0 \ud83d \\u0000", "created_at": SEEN},
    {**PLAIN, "role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "shell", "input": {"x": 1e16}}]},
    {"role": "tool", "content": None, "tool_call_id": "c"},
    {**PLAIN, "model": "m", "input_tokens": 1, "output_tokens": 2, "cached_tokens": 0, "cost": Decimal("0.50")},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "d", "function": {"name": "python"}}]},
    {**PLAIN, "idempotency_key": "k", "token_count": 7},
]
OF_THE_ROW = {"id", "session_id", "created_at"}


def said(message: Message) -> dict[str, Any]:
    return {
        column.key: getattr(message, column.key)
        for column in Message.__mapper__.column_attrs
        if column.key not in OF_THE_ROW
    }


def test_many_together_are_stored_as_each_by_itself(store: Store) -> None:
    alone, together, saved = (store.sessions.create().id for _ in range(3))
    one_by_one = [store.messages.append(alone, **message) for message in CONVERSATION]
    at_once = store.messages.append_many(together, CONVERSATION)
    store.messages.save(saved, [PLAIN])
    store.messages.save(saved, [{**PLAIN, "content": "put in before it"}, *CONVERSATION])
    wanted = [said(message) for message in one_by_one]
    assert [said(store.messages.get(message.id)) for message in one_by_one] == wanted
    assert [said(message) for message in at_once] == wanted
    assert [said(message) for message in store.messages.list(together).items] == wanted
    times = [message.created_at == SEEN for message in store.messages.list(together).items]
    assert times == [message.created_at == SEEN for message in at_once] == [i == 2 for i in range(len(CONVERSATION))]
    history = [message.content for message in one_by_one]
    assert [message["content"] for message in store.messages.history(saved)] == ["put in before it", *history]


def test_what_was_appended_is_a_sequence_of_the_same_objects(store: Store) -> None:
    messages = [{"role": "user", "content": str(n)} for n in range(5)]
    rows = store.messages.append_many(store.sessions.create().id, messages)
    messages[1]["content"] = "changed by its owner"
    assert len(rows) == 5
    assert [row.content for row in rows] == [str(n) for n in range(5)]
    assert [row.seq for row in rows[3:]] == [3, 4]
    assert rows[1] is rows[-4] is rows[1:][0]
    assert repr(rows) == repr(list(rows))
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_what_was_appended_says_what_was_stored_whatever_becomes_of_what_was_given(store: Store) -> None:
    block = {"type": "text", "text": "stored"}
    call = {"id": "stored", "function": {"name": "stored"}}
    nested = {"is": "stored"}
    given = {"role": "assistant", "content": [block], "tool_calls": [call], "metadata": {"nested": [nested]}}
    rows = store.messages.append_many(store.sessions.create().id, [given, {**given, "metadata": {"flat": 1}}])
    block["text"] = call["id"] = nested["is"] = "changed by its owner"
    assert [said(row) for row in rows] == [said(store.messages.get(row.id)) for row in rows]
    assert "stored" in str(rows[0].content)


@pytest.mark.parametrize("key", [["k"], {"k": 1}, 1], ids=repr)
def test_a_key_that_is_no_text_is_refused_by_its_name(store: Store, key: Any) -> None:
    session_id = store.sessions.create().id
    with pytest.raises(InvalidValueError, match=r"^messages\[1\]\.idempotency_key: "):
        store.messages.append_many(session_id, [PLAIN, {**PLAIN, "idempotency_key": key}])
    assert store.messages.count(session_id=session_id) == 0


def test_nothing_appended_is_an_empty_sequence(store: Store) -> None:
    assert list(store.messages.append_many(store.sessions.create().id, [])) == []
