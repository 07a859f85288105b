"""Agents, their snapshots and their documents are found by an index, in the order in which they are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.agents import changes, documents, fork, repository, snapshots, statistics
from agentos_store.agents.models import Agent, AgentDocument, Snapshot
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.statement import Statement
from tests.plans import ROWS, START, Plans, at, filled, insert, mixed, some_row

LARGE = {"agents", "snapshots", "agent_documents", "messages", "tool_call_records", "sessions"}
SESSIONS = 4000


def key(n: int) -> str:
    return f"k{n % 200:03}/a{n:06}"


def fill(engine: sa.Engine) -> None:
    sessions = (some_row(Session, id=f"s{n}", next_seq=5, message_count=5, generation=1) for n in range(SESSIONS))
    insert(engine, Session, sessions)
    insert(engine, Agent, map(agent, range(ROWS)))
    insert(engine, Message, map(message, range(ROWS)))
    insert(engine, ToolCallRecord, map(tool_call, range(ROWS)))
    insert(engine, Snapshot, map(snapshot, range(ROWS)))
    kinds = AgentDocument.table().c.kind.type.values  # type: ignore[attr-defined]
    rows = (
        some_row(AgentDocument, agent_id=key(n % 200), kind=kinds[n // 200 % 5], key=f"d{mixed(n):06}")
        for n in range(ROWS)
    )
    insert(engine, AgentDocument, rows)


def agent(n: int) -> dict[str, Any]:
    return some_row(
        Agent,
        agent_id=key(n),
        template_id=f"t{n % 200}" if n % 3 else None,
        state="failed" if n % 200 == 3 else "archived" if n % 10 == 7 else "idle",
        parent_id=key(n % 400) if n >= 400 else None,
        session_id=f"s{n % SESSIONS}",
        lineage=[key(n % 400)] if n >= 400 else [],
        metadata={"n": n},
        deleted_at=START if n % 50 == 9 else None,
        created_at=at(mixed(n)),
    )


def message(n: int) -> dict[str, Any]:
    closed = 1 if n % 10 == 9 else None
    return some_row(
        Message, id=f"m{n:06}", session_id=f"s{n % SESSIONS}", seq=n // SESSIONS, to_generation=closed, content="x"
    )


def tool_call(n: int) -> dict[str, Any]:
    return some_row(
        ToolCallRecord,
        id=f"c{n:06}",
        agent_id=key(n % 1000),
        session_id=f"s{n % SESSIONS}",
        message_id=f"m{n:06}",
        tool_call_id=f"c{n}",
        tool_name="x",
        state="completed",
    )


def snapshot(n: int) -> dict[str, Any]:
    return some_row(
        Snapshot,
        agent_id=key(n % 200),
        snapshot_id=f"x{n:06}",
        session_id=f"s{n % SESSIONS}",
        generation=0,
        up_to_seq=4,
        created_at=at(mixed(n)),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    yield from filled(request, tmp_path_factory, fill, LARGE)


FILTERS: dict[str, dict[str, object]] = {
    "none": {},
    "template": {"template_id": "t7"},
    "state": {"state": "failed"},
    "active": {"active": True},
    "parent": {"parent_id": key(7)},
    "conversation": {"session_id": "s7"},
    "after": {"created_after": at(ROWS - 500)},
    "before": {"created_before": at(500)},
    "between": {"created_after": at(9_990), "created_before": at(10_500)},
    "template and time": {"template_id": "t7", "created_after": at(500)},
    "ancestor": {"lineage": [key(7)]},
    "metadata": {"metadata": {"n": 7}},
}
UNBOUNDED = {"none", "active", "ancestor", "metadata"}
"""Those that walk through the agents in the order of time: most of them pass, or containment narrows them."""


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_of_agents_comes_from_an_index_in_the_order_of_time(
    plans: Plans, name: str, descending: bool, after: bool
) -> None:
    values = {"open": True, **FILTERS[name]}
    columns = repository._LISTING.orders["created_at"]
    statement = repository._LISTING._build(values, descending, columns, after=after)
    binds = {**values, "limit_": 51, "offset_": 0, "after_0": at(10_000), "after_1": key(7)}
    # GIN finds what contains, in no order.
    plans.check(statement, binds, sorts=name in {"ancestor", "metadata"}, scans=name in UNBOUNDED)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_of_a_prefix_comes_from_the_key(plans: Plans, descending: bool, after: bool) -> None:
    values = {"open": True, "prefix": "k007/", "behind": "k0070"}
    columns = repository._LISTING.orders["agent_id"]
    statement = repository._LISTING._build(values, descending, columns, after=after)
    plans.check(statement, {**values, "limit_": 51, "offset_": 0, "after_0": key(7)})


@pytest.mark.parametrize(
    "filters", [{}, {"created_after": at(500)}, {"created_after": at(9), "created_before": at(99)}]
)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_of_an_agent_s_snapshots_comes_from_an_index(
    plans: Plans, filters: dict[str, object], descending: bool, after: bool
) -> None:
    values = {"open": True, "agent_id": key(7), **filters}
    columns = snapshots._LISTING.orders["created_at"]
    statement = snapshots._LISTING._build(values, descending, columns, after=after)
    plans.check(statement, {**values, "limit_": 51, "offset_": 0, "after_0": at(50), "after_1": "x000007"})


@pytest.mark.parametrize("filters", [{}, {"kind": "compression"}])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_of_an_agent_s_documents_comes_from_the_key(
    plans: Plans, filters: dict[str, object], descending: bool, after: bool
) -> None:
    values = {"open": True, "agent_id": key(7), **filters}
    columns = documents._LISTING.orders["key"]
    statement = documents._LISTING._build(values, descending, columns, after=after)
    plans.check(statement, {**values, "limit_": 51, "offset_": 0, "after_0": "compression", "after_1": "d000007"})


FORK = {
    "parent_id": key(7),
    "parent_session_id": "s7",
    "generation": 0,
    "up_to_seq": 4,
    "new_agent_id": "f",
    "new_session_id": "f",
}
HOT: dict[str, tuple[Statement[Any], dict[str, object]]] = {
    "get": (changes.GET, {"agent_id": key(7)}),
    "exists": (repository._EXISTS, {"agent_id": key(7)}),
    "change": (
        changes._change_of({"state": sa.bindparam("new_state", type_=Agent.table().c.state.type)}, "open"),
        {
            "agent_id": key(7),
            "new_state": "idle",
            "new_updated_at": START,
            "given_version": None,
            "expected": "idle",
        },
    ),
    "purge": (repository._PURGE, {"agent_id": key(7)}),
    "statistics": (statistics._AGGREGATE, {"agent_id": key(7)}),
    "get a document": (documents._GET, {"agent_id": key(7), "kind": "todos", "key": "d000007"}),
    "delete a document": (documents._DELETE, {"agent_id": key(7), "kind": "todos", "key": "d000007"}),
    "get a snapshot": (snapshots._GET, {"agent_id": key(7), "snapshot_id": "x000007"}),
    "save a snapshot": (
        snapshots._SAVE,
        {
            **dict.fromkeys(Snapshot.table().c.keys()),
            "agent_id": key(7),
            "snapshot_id": "x",
            "given_up_to_seq": None,
            "given_last_sfp_index": None,
            "given_last_bookmark": None,
            "metadata": {},
            "created_at": START,
        },
    ),
    "the messages of a snapshot": (snapshots._MESSAGES_THEN, {"session_id": "s7", "generation": 0, "up_to_seq": 4}),
    "copy messages": (fork._COPY_MESSAGES, dict(FORK)),
    "copy calls": (fork._COPY_CALLS, dict(FORK)),
    "what goes with a session": (
        Statement(
            sa.delete(Snapshot.table()).where(
                Snapshot.table().c.session_id == sa.bindparam("session_id", type_=Snapshot.table().c.session_id.type)
            )
        ),
        {"session_id": "s7"},
    ),
}


@pytest.mark.parametrize("name", HOT)
def test_a_statement_that_runs_often_finds_its_rows_by_an_index(plans: Plans, name: str) -> None:
    # The calls that are copied are numbered, and one agent's that are counted are grouped.
    plans.check(*HOT[name], sorts=name in {"copy calls", "statistics"})


def test_a_scan_and_a_sort_would_be_noticed(plans: Plans) -> None:
    table = Agent.table()
    for query in (
        sa.select(table).where(table.c.role == sa.bindparam("role", type_=table.c.role.type)),
        sa.select(table).order_by(table.c.goal),
    ):
        with pytest.raises(AssertionError):
            plans.check(Statement(query, lasting=False), {"role": "x"})
