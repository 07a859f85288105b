"""Messages are found by an index, in the order in which they are given, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.agents.models import Agent
from agentos_store.conversations import append_statements, messages, rewrite, saving
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session
from agentos_store.engine.statement import Statement
from tests.plans import ROWS, START, Plans, at, filled, insert, mixed, some_row

LARGE = {"messages", "sessions"}
SESSIONS = 200


def fill(engine: sa.Engine) -> None:
    sessions = (
        some_row(Session, id=f"s{n}", deleted_at=START if n % 50 == 9 else None, next_seq=100, message_count=100)
        for n in range(SESSIONS)
    )
    insert(engine, Session, sessions)
    insert(engine, Agent, (some_row(Agent, agent_id=f"a{n}", lineage=[]) for n in range(SESSIONS)))
    insert(engine, Message, map(message, range(ROWS)))


def message(n: int) -> dict[str, Any]:
    # Few messages of a conversation call a tool, fewer hold an image; one in ten is closed.
    types = 3 if n % 40 == 3 else 4 if n % 40 == 4 else 8 if n % 50 == 5 else 16 if n % 500 == 6 else 1
    return some_row(
        Message,
        id=f"m{n:06}",
        session_id=f"s{n % SESSIONS}",
        agent_id=f"a{n % SESSIONS}" if n % 3 else None,
        seq=n // SESSIONS,
        from_generation=0,
        to_generation=1 if n % 10 == 9 else None,
        role="system" if n % 100 == 1 else "user",
        content="x",
        content_types=types,
        tool_names=[f"tool{n // 40 % 20}"] if types == 3 else None,
        idempotency_key=f"k{n}",
        metadata={"n": n},
        created_at=at(mixed(n)),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    yield from filled(request, tmp_path_factory, fill, LARGE)


ALWAYS = {"current": True, "open": True}
FILTERS: dict[str, dict[str, object]] = {
    "none": {},
    "agent": {"agent_id": "a7"},
    "role": {"role": "system"},
    "tool use": {"content_type=tool_use": True},
    "tool result": {"content_type=tool_result": True},
    "reasoning": {"content_type=reasoning": True},
    "image": {"content_type=image": True},
    "other": {"content_type=other": True},
    "text": {"content_type=text": True},
    "tool name": {"tool_name": ["tool7"]},
    "after": {"created_after": at(ROWS - 500)},
    "before": {"created_before": at(500)},
    "between": {"created_after": at(500), "created_before": at(900)},
    "agent and time": {"agent_id": "a7", "created_after": at(500)},
    "metadata": {"metadata": {"n": 7}},
}
UNBOUNDED = {"none", "text", "metadata", "tool name"}
"""Those that walk through the messages in the order of time: most of them pass, or containment narrows them."""


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_over_all_conversations_comes_from_an_index(
    plans: Plans, name: str, descending: bool, after: bool
) -> None:
    columns = messages._OF_ALL.orders["created_at"]
    values = {**ALWAYS, **FILTERS[name]}
    statement = messages._OF_ALL._build(values, descending, columns, after=after)
    binds = {**values, "limit_": 51, "offset_": 0, "after_0": at(10_000), "after_1": "m010000"}
    # The partial indexes of content types need no condition: all that is in them is wanted.
    partial = name in {"tool use", "tool result", "reasoning", "image", "other"}
    plans.check(statement, binds, sorts=name == "tool name", scans=name in UNBOUNDED or partial)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_of_one_conversation_comes_from_its_numbers(
    plans: Plans, name: str, descending: bool, after: bool
) -> None:
    columns = messages._OF_SESSION.orders["seq"]
    values = {**ALWAYS, "session_id": "s7", **FILTERS[name]}
    statement = messages._OF_SESSION._build(values, descending, columns, after=after)
    binds = {**values, "limit_": 51, "offset_": 0, "after_0": "s7", "after_1": 50, "after_2": "m010007"}
    # A tool's messages may be found by the tool, and one agent's within a time by the time: a few rows, then sorted.
    plans.check(statement, binds, sorts=name in {"tool name", "after", "before", "between", "agent and time"})


HOT: dict[str, tuple[Statement[Any], dict[str, object]]] = {
    "get": (append_statements.GET, {"id": "m000007"}),
    "by key": (append_statements.BY_KEY, {"session_id": "s7", "idempotency_key": "k7"}),
    "history": (messages._HISTORY, {"session_id": "s7"}),
    "the last": (messages._LAST, {"session_id": "s7", "limit_": 51}),
    "all that is there": (saving._OLD, {"session_id": "s7"}),
    "close": (rewrite._CLOSE, {"session_id": "s7", "first": 3, "behind": 9, "generation": 2}),
    "copy": (rewrite._COPY, {"session_id": "s7", "first": 3, "behind": 9, "generation": 2, "tag": "@2"}),
    "move": (rewrite._MOVE, {"id": "m000007", "seq": 1, "generation": 2}),
    "draw": (
        append_statements.DRAW_KEYED,
        {"session_id": "s7", "idempotency_key": "new", "tokens": 1, "spent": Decimal(0), "now": START},
    ),
    "what goes with a session": (
        Statement(
            sa.delete(Message.table()).where(
                Message.table().c.session_id == sa.bindparam("session_id", type_=Message.table().c.session_id.type)
            )
        ),
        {"session_id": "s7"},
    ),
    "what an agent leaves": (
        Statement(
            sa.update(Message.table())
            .where(Message.table().c.agent_id == sa.bindparam("agent_id", type_=Message.table().c.agent_id.type))
            .values(agent_id=sa.null())
        ),
        {"agent_id": "a7"},
    ),
}


@pytest.mark.parametrize("name", HOT)
def test_a_statement_that_runs_often_finds_its_rows_by_an_index(plans: Plans, name: str) -> None:
    plans.check(*HOT[name])
