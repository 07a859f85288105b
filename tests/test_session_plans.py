"""Sessions and contexts are found by an index, in the order in which they are given, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.agents.models import Agent
from agentos_store.conversations import contexts, sessions
from agentos_store.conversations.context_models import Context
from agentos_store.conversations.models import Session, User
from agentos_store.engine.statement import Statement
from tests.plans import ROWS, START, Plans, at, filled, insert, mixed, some_row

LARGE = {"sessions", "contexts", "agents"}
USERS = 1000
BUSY = "u0"
"""A user with 5,000 sessions."""


def fill(engine: sa.Engine) -> None:
    users = (some_row(User, id=f"u{n}", email=f"u{n}@x", quota_total=1) for n in range(USERS))
    insert(engine, User, users)
    insert(engine, Session, map(session, range(ROWS)))
    insert(engine, Agent, map(agent, range(ROWS)))
    insert(engine, Context, map(context, range(ROWS)))


def session(n: int) -> dict[str, Any]:
    return some_row(
        Session,
        id=f"s{n:06}",
        user_id=BUSY if n % 4 == 0 else f"u{n % USERS}" if n % 4 == 1 else None,
        status="cancelled" if n % 100 == 1 else "completed",
        channel=f"channel{n % 200}",
        metadata={"n": n},
        deleted_at=START if n % 50 == 9 else None,
        created_at=at(mixed(n)),
        updated_at=at(mixed(n + 5000)),
    )


def agent(n: int) -> dict[str, Any]:
    return some_row(
        Agent,
        agent_id=f"a{n:06}",
        lineage=[],
        template_id=f"t{n % 200}",
        session_id=f"s{n:06}" if n % 3 else None,
        deleted_at=START if n % 50 == 8 else None,
        created_at=at(mixed(n)),
    )


def context(n: int) -> dict[str, Any]:
    return some_row(
        Context,
        context_id=f"c{n:06}",
        agent_id=f"a{n % 200:06}" if n % 3 else None,
        session_id=f"s{n % 200:06}" if n % 2 else None,
        # A tenth of them has expired, a tenth never will.
        expires_at=None if n % 10 == 1 else at(-n) if n % 10 == 2 else at(10**9 + n),
        created_at=at(mixed(n)),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    yield from filled(request, tmp_path_factory, fill, LARGE)


FILTERS: dict[str, dict[str, object]] = {
    "none": {},
    "user": {"user_id": "u1"},
    "busy user": {"user_id": BUSY},
    "status": {"status": "cancelled"},
    "channel": {"channel": "channel7"},
    "template": {"template_id": "t7"},
    "agent": {"agent_id": "a000007"},
    "created after": {"created_after": at(ROWS - 500)},
    "created before": {"created_before": at(500)},
    "created between": {"created_after": at(9_000), "created_before": at(9_500)},
    "updated after": {"updated_after": at(ROWS - 500)},
    "updated before": {"updated_before": at(500)},
    "updated between": {"updated_after": at(9_000), "updated_before": at(9_500)},
    "status and time": {"status": "cancelled", "created_after": at(9_000), "created_before": at(9_500)},
    "user and time": {"user_id": BUSY, "updated_after": at(9_000), "updated_before": at(9_500)},
    "metadata": {"metadata": {"n": 7}},
}
IN_ORDER = {
    "created_at": [
        "status",
        "channel",
        "created after",
        "created before",
        "created between",
        "status and time",
        "template",
        "agent",
        "none",
        "metadata",
    ],
    "updated_at": [
        "user",
        "busy user",
        "updated after",
        "updated before",
        "updated between",
        "user and time",
        "none",
        "metadata",
    ],
}
"""By order, the filters that have an index in it. Others are served by the index of the order, narrowed."""
CASES = [(order, name) for order, names in IN_ORDER.items() for name in names]


UNBOUNDED = {"none", "metadata"}
HELD = {"template", "agent"}
"""Those that agents are asked for first: their sessions are few, and are then sorted."""


@pytest.mark.parametrize(("order", "name"), CASES)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("open_", [False, True])
def test_a_page_of_sessions_comes_from_an_index_in_its_order(
    plans: Plans, order: str, name: str, descending: bool, after: bool, open_: bool
) -> None:
    values = FILTERS[name] | ({"open": True} if open_ else {})
    statement = sessions._LISTING._build(values, descending, sessions._LISTING.orders[order], after=after)
    binds = {**values, "limit_": 21, "offset_": 0, "after_0": at(9_250), "after_1": "s010000"}
    # GIN finds what contains, in no order; SQLite narrows the rows of the order's index.
    plans.check(statement, binds, sorts=name in HELD | {"metadata"}, scans=name in UNBOUNDED)


CONTEXTS: dict[str, dict[str, object]] = {
    "none": {},
    "agent": {"agent_id": "a000007"},
    "session": {"session_id": "s000007"},
    "agent and session": {"agent_id": "a000007", "session_id": "s000007"},
}


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("open_", [False, True])
def test_a_page_of_contexts_comes_from_an_index_in_its_order(
    plans: Plans, name: str, descending: bool, after: bool, open_: bool
) -> None:
    values = CONTEXTS[name] | {"live": True} | ({"open": True} if open_ else {})
    (columns,) = contexts._LISTING.orders.values()
    statement = contexts._LISTING._build(values, descending, columns, after=after)
    binds = {**values, "limit_": 21, "offset_": 0, "after_0": at(9_250), "after_1": "c010000"}
    plans.check(statement, binds, scans=name == "none")


def of(table: sa.Table, column: str) -> sa.ColumnElement[bool]:
    return table.c[column] == sa.bindparam(column, type_=table.c[column].type)


ROW: dict[str, object] = {
    "context_id": "c000007",
    "agent_id": None,
    "session_id": None,
    "context_data": 1,
    "created_at": START,
}
NOW: dict[str, object] = {"id": "s000007", "now": START}
HOT: dict[str, tuple[Statement[Any], dict[str, object]]] = {
    "get a session": (sessions._GET, NOW),
    "get an open session": (sessions._GET_OPEN, NOW),
    "lock a session": (sessions._LOCK, NOW),
    **{f"make a session {to}": (step, NOW) for to, step in sessions._STEPS.items()},
    "delete a session": (sessions._DELETE, NOW),
    "restore a session": (sessions._RESTORE, NOW),
    "purge a session": (sessions._PURGE, NOW),
    "get a context": (contexts._GET, {"context_id": "c000007"}),
    "is there a context": (contexts._EXISTS, {"context_id": "c000007"}),
    "delete a context": (contexts._DELETE, {"context_id": "c000007"}),
    "save a context": (contexts._SAVE, ROW),
    "save a context for a while": (contexts._SAVE_FOR, {**ROW, "ttl": 5.0}),
    "save a context until": (contexts._SAVE_UNTIL, {**ROW, "until": START}),
    "clean up": (contexts._CLEAN_UP, {"limit_": 100}),
    "what goes with a session": (
        Statement(sa.delete(Context.table()).where(of(Context.table(), "session_id"))),
        {"session_id": "s000007"},
    ),
    "what goes with an agent": (
        Statement(sa.delete(Context.table()).where(of(Context.table(), "agent_id"))),
        {"agent_id": "a000007"},
    ),
    "what a purged session leaves": (
        Statement(sa.update(Agent.table()).where(of(Agent.table(), "session_id")).values(session_id=sa.null())),
        {"session_id": "s000007"},
    ),
}


@pytest.mark.parametrize("name", HOT)
def test_a_statement_that_runs_often_finds_its_rows_by_an_index(plans: Plans, name: str) -> None:
    plans.check(*HOT[name])


def test_a_scan_and_a_sort_would_be_noticed(plans: Plans) -> None:
    for table in (Session.table(), Context.table(), Agent.table()):
        with pytest.raises(AssertionError):
            plans.check(Statement(sa.select(table), lasting=False), {})
    with pytest.raises(AssertionError):
        plans.check(Statement(sa.select(Session.table()).order_by(Session.title), lasting=False), {})
