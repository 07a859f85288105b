"""Saving a whole conversation: what is read back is what was saved, and what stayed was not touched."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import Store
from agentos_store.conversations.difference import COMPARABLE
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.saving import Saved
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError
from agentos_store.operation import Blocking, F, Repository, reads
from agentos_store.types import dumps_exact


def say(number: int) -> dict[str, Any]:
    return {"role": "user" if number % 2 else "assistant", "content": f"message {number}"}


class Look(Repository[F]):
    """Reads every row of a conversation, those that are closed included."""

    name = "look"

    @reads
    def rows(self, session: Session, session_id: str) -> list[Message]:
        return session.all(EVERY, {"session_id": session_id})


def every() -> Statement[Message]:
    from sqlalchemy import bindparam, select

    table = Message.table()
    key = bindparam("session_id", type_=table.c.session_id.type)
    return Statement(select(table).where(table.c.session_id == key).order_by(table.c.seq, table.c.id), returns=Message)


EVERY = every()


def all_rows(store: Store, session_id: str) -> dict[str, dict[str, Any]]:
    return {row.id: row.to_dict() for row in store.bind(Look[Blocking]).rows(session_id)}


def current(store: Store, session_id: str) -> list[Message]:
    return list(store.messages.iterate(session_id))


def generation(rows: dict[str, dict[str, Any]], number: int) -> list[str]:
    """Return the conversation as it was in a generation, by the rule of the model's docstring."""
    then = [
        row
        for row in rows.values()
        if row["from_generation"] <= number and (row["to_generation"] is None or row["to_generation"] > number)
    ]
    then.sort(key=lambda row: row["seq"])
    assert [row["seq"] for row in then] == list(range(len(then)))
    return [f"{row['role']} {dumps_exact(row['content'], 'content')}" for row in then]


def save_and_judge(store: Store, session_id: str, wanted: list[dict[str, Any]]) -> Saved:
    """Save, and hold what was written against what changed."""
    before, was = all_rows(store, session_id), current(store, session_id)
    session = store.sessions.get(session_id)
    saved = store.messages.save(session_id, wanted)
    after, now = all_rows(store, session_id), current(store, session_id)
    assert store.messages.history(session_id) == wanted
    assert [row.seq for row in now] == list(range(len(wanted)))
    # Every generation before this one still reads as it did.
    for number in range(session.generation):
        assert generation(after, number) == generation(before, number)
    # What was appended since belongs to the same generation.
    assert generation(after, session.generation)[: len(was)] == generation(before, session.generation)

    there = {row.id: row for row in was}
    stayed = {row.id for row in now} & there.keys()
    moved = {row.id for row in now if row.id in there and row.seq != there[row.id].seq}
    for row in now:
        if row.id in stayed:
            assert row.created_at == there[row.id].created_at
            assert (row.role, row.content) == (there[row.id].role, there[row.id].content)
    written = {key for key, row in after.items() if before.get(key) != row}
    assert len(written) == saved.added + saved.closed + 2 * saved.moved
    assert (saved.kept, saved.moved) == (len(stayed) - len(moved), len(moved))
    assert (saved.added, saved.closed) == (len(now) - len(stayed), len(was) - len(stayed))
    assert before.keys() <= after.keys()
    rewritten = saved.closed > 0 or saved.moved > 0
    counted = store.sessions.get(session_id)
    assert (counted.message_count, counted.next_seq) == (len(wanted), len(wanted))
    assert counted.generation == saved.generation == session.generation + rewritten
    if not written:
        assert counted.to_dict() == session.to_dict()
    return saved


def edit(conversation: list[dict[str, Any]], dice: random.Random) -> list[dict[str, Any]]:
    """Let it grow, cut it, or replace something in the middle."""
    new = [say(dice.randrange(10**6)) for _ in range(dice.randint(1, 6))]
    kind = dice.choice(["grow", "grow", "cut", "compress", "replace", "insert", "drop", "shuffle"])
    first = dice.randint(0, len(conversation))
    behind = dice.randint(first, min(len(conversation), first + 12))
    if kind == "grow":
        return conversation + new
    if kind == "cut":
        return conversation[:behind]
    if kind == "compress":
        return [{"role": "system", "content": f"summary {dice.random()}"}, *conversation[first:]]
    if kind == "replace":
        return conversation[:first] + new + conversation[behind:]
    if kind == "insert":
        return conversation[:first] + new + conversation[first:]
    if kind == "drop":
        return conversation[:first] + conversation[behind:]
    return dice.sample(conversation, len(conversation)) if len(conversation) < 8 else conversation


def test_a_hundred_random_edits_write_what_changed(store: Store) -> None:
    dice = random.Random(20261121)
    session_id = store.sessions.create().id
    conversation: list[dict[str, Any]] = []
    for _ in range(100):
        conversation = edit(conversation, dice)
        save_and_judge(store, session_id, conversation)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.integers(0, 5), max_size=7), max_size=4))
def test_few_words_in_any_order(both: list[Store], versions: list[list[int]]) -> None:
    reports = []
    for store in both:
        session_id = store.sessions.create().id
        reports.append([save_and_judge(store, session_id, [say(n) for n in version]) for version in versions])
    assert reports[0] == reports[1]


def test_one_new_of_a_hundred_is_one_row(store: Store) -> None:
    session_id = store.sessions.create().id
    conversation = [say(n) for n in range(99)]
    save_and_judge(store, session_id, conversation)
    saved = save_and_judge(store, session_id, [*conversation, say(99)])
    assert saved == Saved(generation=0, message_count=100, kept=99, moved=0, added=1, closed=0)
    # Nothing new, nothing written.
    assert save_and_judge(store, session_id, [*conversation, say(99)]).added == 0


def test_compressing_the_middle_keeps_both_ends(store: Store) -> None:
    session_id = store.sessions.create().id
    conversation = [say(n) for n in range(30)]
    store.messages.save(session_id, conversation)
    ids = [row.id for row in current(store, session_id)]
    summary = {"role": "system", "content": "so far"}
    saved = save_and_judge(store, session_id, [*conversation[:2], summary, *conversation[25:]])
    assert saved == Saved(generation=1, message_count=8, kept=2, moved=5, added=1, closed=23)
    now = [row.id for row in current(store, session_id)]
    assert now[:2] + now[3:] == ids[:2] + ids[25:]


def test_two_changes_far_apart_leave_alone_what_is_between(store: Store) -> None:
    session_id = store.sessions.create().id
    conversation = [say(n) for n in range(40)]
    store.messages.save(session_id, conversation)
    conversation[3], conversation[36] = say(103), say(136)
    assert save_and_judge(store, session_id, conversation).kept == 38


def test_a_conversation_too_long_to_compare_keeps_what_is_at_its_place(store: Store) -> None:
    session_id = store.sessions.create().id
    side = int(COMPARABLE**0.5) + 10
    conversation = [say(n) for n in range(side)]
    store.messages.save(session_id, conversation)
    conversation[0], conversation[-1] = say(-1), say(-2)
    saved = store.messages.save(session_id, conversation)
    assert (saved.kept, saved.closed, saved.added) == (side - 2, 2, 2)
    assert store.messages.history(session_id) == conversation


def test_rows_can_be_saved_as_they_were_read(store: Store) -> None:
    session_id = store.sessions.create().id
    store.messages.append_many(
        session_id,
        [
            {"role": "user", "content": "a", "metadata": {"x": 1}, "token_count": 5, "cost": Decimal("0.1")},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "idempotency_key": "k"},
            {"role": "tool", "content": "1", "tool_call_id": "1", "name": "f"},
        ],
    )
    rows = current(store, session_id)
    before = all_rows(store, session_id)
    assert store.messages.save(session_id, rows).kept == 3
    assert all_rows(store, session_id) == before
    # In another session they are messages of their own.
    other = store.sessions.create().id
    store.messages.save(other, rows)
    assert store.messages.history(other) == store.messages.history(session_id)
    assert store.sessions.get(other).total_tokens == 5


def test_what_is_said_beside_the_content_counts_as_a_change(store: Store) -> None:
    session_id = store.sessions.create().id
    store.messages.save(session_id, [{**say(0), "metadata": {"x": 1}, "token_count": 3}, say(1)])
    left_out = store.messages.save(session_id, [say(0), say(1)])
    assert (left_out.kept, left_out.generation) == (2, 0)
    changed = store.messages.save(session_id, [{**say(0), "metadata": {"x": 2}}, say(1)])
    assert (changed.kept, changed.added, changed.closed) == (1, 1, 1)
    assert current(store, session_id)[0].metadata_ == {"x": 2}


def test_values_that_python_holds_equal_are_changes(store: Store) -> None:
    session_id = store.sessions.create().id
    store.messages.save(session_id, [{**say(0), "metadata": {"a": 1, "b": [0]}}])
    for metadata in ({"a": True, "b": [0]}, {"a": 1.0, "b": [0]}, {"a": 1, "b": [False]}):
        assert store.messages.save(session_id, [{**say(0), "metadata": metadata}]).added == 1
        assert repr(current(store, session_id)[0].metadata_) == repr(metadata)
    for wrong in ({"token_count": True}, {"cost": 0.5}):
        with pytest.raises(InvalidValueError):
            store.messages.save(session_id, [{**say(0), **wrong}])


def test_no_identifier_of_a_callers_is_in_the_way_of_a_move(store: Store) -> None:
    session_id = store.sessions.create().id
    long = "x" * 255
    store.messages.append_many(session_id, [say(0), {**say(1), "id": long}, {**say(2), "id": f"{long[:250]}@1"}])
    assert store.messages.save(session_id, [say(1), say(2)]).moved == 2
    rows = all_rows(store, session_id)
    assert all(store.messages.get(key).id == key for key in rows)
    copies = {row["copied_from"]: row["seq"] for row in rows.values() if row["copied_from"] is not None}
    assert copies == {long: 1, f"{long[:250]}@1": 2}


def test_the_order_of_keys_within_content_is_content(store: Store) -> None:
    session_id = store.sessions.create().id
    store.messages.save(session_id, [{"role": "user", "content": [{"type": "x", "a": 1, "b": 1.0}]}])
    assert store.messages.save(session_id, [{"role": "user", "content": [{"type": "x", "b": 1.0, "a": 1}]}]).added == 1
    assert list(store.messages.history(session_id)[0]["content"][0]) == ["type", "b", "a"]


def test_what_was_spent_stays_spent(store: Store) -> None:
    session_id = store.sessions.create().id
    spent = [{**say(n), "token_count": 10, "cost": Decimal("0.5")} for n in range(4)]
    store.messages.save(session_id, spent)
    store.messages.save(session_id, [{**say(9), "token_count": 1, "cost": Decimal("0.1")}, spent[3]])
    session = store.sessions.get(session_id)
    assert (session.message_count, session.total_tokens, session.total_cost) == (2, 41, Decimal("2.1"))


def test_a_stale_version_is_refused_and_nothing_is_written(store: Store) -> None:
    session_id = store.sessions.create().id
    store.messages.save(session_id, [say(0), say(1)])
    seen = store.sessions.get(session_id)
    store.messages.append(session_id, role="user", content="somebody else's")
    before = all_rows(store, session_id)
    with pytest.raises(ConflictError) as caught:
        store.messages.save(
            session_id,
            [say(0), say(1), say(2)],
            expected_generation=seen.generation,
            expected_next_seq=seen.next_seq,
        )
    assert (caught.value.entity, caught.value.key) == ("session", session_id)
    assert all_rows(store, session_id) == before
    store.messages.save(session_id, [say(0)], expected_next_seq=3)
    with pytest.raises(ConflictError):
        store.messages.save(session_id, [say(0)], expected_generation=0)
    with pytest.raises(InvalidValueError):
        store.messages.save(session_id, [say(0)], expected_generation=True)


@pytest.mark.parametrize(
    ("messages", "name"),
    [
        ("text", "messages"),
        ({"role": "user"}, "messages"),
        ([say(0), "x"], "messages[1]"),
        ([say(0), {"role": "user", "text": "x"}], "messages[1]['text']"),
        ([say(0), {"role": "user", "content": "x", "token_count": "1"}], "messages[1].token_count"),
        ([say(0), {"role": ["user"], "content": "x"}], "messages[1].role"),
        ([say(0), {"role": "user", "content": (1,)}], "messages[1].content"),
    ],
)
def test_what_is_no_list_of_messages_is_refused(store: Store, messages: Any, name: str) -> None:
    session_id = store.sessions.create().id
    store.messages.save(session_id, [say(5)])
    before = all_rows(store, session_id)
    with pytest.raises(InvalidValueError) as caught:
        store.messages.save(session_id, messages)
    assert caught.value.name == name
    with pytest.raises(InvalidValueError):
        store.messages.append_many(session_id, messages)
    assert all_rows(store, session_id) == before


@pytest.mark.parametrize(("keys", "taken"), [(["new", "old"], "old"), (["twice", "twice", "old"], "twice")])
def test_an_idempotency_key_that_is_taken_is_named_among_several(store: Store, keys: list[str], taken: str) -> None:
    session_id = store.sessions.create().id
    store.messages.append(session_id, role="user", content="0", idempotency_key="old")
    new = [{"role": "user", "content": f"{n}", "idempotency_key": key} for n, key in enumerate(keys, 1)]
    with pytest.raises(AlreadyExistsError) as caught:
        store.messages.save(session_id, [{"role": "user", "content": "0"}, *new])
    assert (caught.value.key, caught.value.field) == ((session_id, taken), "session_id, idempotency_key")
    assert store.sessions.get(session_id).message_count == 1


def test_a_failed_save_in_a_transaction_leaves_the_others(store: Store) -> None:
    session_id = store.sessions.create().id
    with store.transaction() as tx:
        tx.messages.append(session_id, **say(0))
        with pytest.raises(InvalidValueError):
            tx.messages.save(session_id, [say(0), {"role": "user", "content": "", "token_count": -1}])
        tx.messages.save(session_id, [say(0), say(1)])
    assert store.messages.history(session_id) == [say(0), say(1)]
