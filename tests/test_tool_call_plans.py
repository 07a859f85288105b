"""Every list of tool calls and every statement about them finds its rows by an index, 24,000 rows in the table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.agents.models import Agent
from agentos_store.conversations import tool_call_dangling as dangling
from agentos_store.conversations import tool_call_steps as steps
from agentos_store.conversations import tool_calls
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.conversations.tool_call_steps import Key, Step
from agentos_store.engine.statement import Statement
from tests.plans import Plans, PostgreSQLPlans, at, filled, insert, mixed, some_row

LARGE = {"tool_call_records", "messages"}
ROWS = 24_000
MESSAGES = 8000


def fill(engine: sa.Engine) -> None:
    insert(engine, Session, (some_row(Session, id=f"s{n}") for n in range(200)))
    insert(engine, Agent, (some_row(Agent, agent_id=f"a{n}", session_id=f"s{n}") for n in range(200)))
    insert(
        engine,
        Message,
        (
            some_row(
                Message,
                id=f"m{n:06}",
                session_id=f"s{n % 40}",
                seq=n // 40,
                role="assistant",
                content=[],
                content_types=2 if n % 3 else 1,
                created_at=at(mixed(n, MESSAGES)),
            )
            for n in range(MESSAGES)
        ),
    )
    insert(
        engine,
        ToolCallRecord,
        (
            some_row(
                ToolCallRecord,
                id=f"c{n:06}",
                agent_id=None if n % 2 else f"a{n % 200}",
                session_id=f"s{n % 199}",
                tool_call_id=f"t{n}",
                message_id=f"m{n % MESSAGES:06}",
                tool_name=f"tool{n % 200}",
                # Where nothing stands out, no index by state is any better than the order's.
                state="approval_required" if n % 200 == 3 else "executing" if n % 300 == 1 else "completed",
                is_error=n % 200 == 5,
                approval={"required": True} if n % 200 in {3, 4} else None,
                audit_trail=[],
                created_at=at(mixed(n, ROWS)),
            )
            for n in range(ROWS)
        ),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    yield from filled(request, tmp_path_factory, fill, LARGE)


VALUES: dict[str, object] = {
    "tool_name": "tool7",
    "state": "approval_required",
    "is_error=True": True,
    "is_error=False": True,
    "has_approval=True": True,
    "has_approval=False": True,
    "agent_id": "a8",
    "session_id": "s7",
    "created_after": at(ROWS - 500),
    "created_before": at(500),
}
MOST = {"is_error=False", "has_approval=False"}
"""What nearly all rows pass: the order's own index is walked until the page is full."""


def combinations() -> Iterator[tuple[str, ...]]:
    yield ()
    names = [*VALUES]
    for each in names:
        yield (each,)
    yield from itertools.combinations([*(each for each in names if each not in MOST)], 2)


@pytest.mark.parametrize("filters", [*combinations()], ids="+".join)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("include_deleted", [False, True])
def test_a_page_comes_from_an_index_in_its_order(
    plans: Plans, filters: tuple[str, ...], after: bool, include_deleted: bool
) -> None:
    values = {each: VALUES[each] for each in filters}
    if filters == ("created_after", "created_before"):
        values = {"created_after": at(9_990), "created_before": at(10_500)}
    if not include_deleted:
        values["open"] = True
    listing = tool_calls.LISTING
    columns = listing.orders["created_at"]
    binds = {**values, "limit_": 51, "offset_": 0}
    if after:
        binds |= {"after_0": at(10_000), "after_1": "c010000"}
    partial = {"is_error=True", "has_approval=True"} & set(filters)
    for descending in (False, True):
        statement = listing._build(values, descending, columns, after=after)
        # An index that holds no other rows than those that pass is walked from end to end.
        plans.check(statement, binds, scans=set(filters) <= MOST or bool(partial))


def given(step: Step) -> Mapping[str, object]:
    return {**step.values(at(0)), "origins": [*step.origins()], "id": "c000007"}


KEYS = {
    "agent": Key("t8", "a8", None),
    "session": Key("t7", None, "s7"),
    "record": Key("c000007", None, None),
}
SCOPE = {"agent_id": "a8", "session_id": "s7", "at": at(0)}
ENTRY = {"state": "sealed", "at": "x"}
HOT: dict[str, tuple[Statement[Any], Mapping[str, object]]] = {
    **{f"find by {kind}": (steps._FIND[kind], key.values()) for kind, key in KEYS.items()},
    "names of a session": (dangling._KNOWN_IN_SESSION, SCOPE),
    "names of an agent": (dangling._KNOWN_OF_AGENT, SCOPE),
    "names of the agents of a session": (dangling._KNOWN_OF_ITS_AGENTS, SCOPE),
    "messages about tools": (dangling._OF_TOOLS, {"session_id": "s7", "after": -1, "limit_": 500}),
    "the agent": (dangling._AGENT, SCOPE),
    "the session": (dangling._SESSION, SCOPE),
}
SCOPES = [(True, False), (False, True), (True, True)]


@pytest.mark.parametrize("name", HOT)
def test_a_statement_that_runs_often_finds_its_rows_by_an_index(plans: Plans, name: str) -> None:
    plans.check(*HOT[name])


@pytest.mark.parametrize("kind", KEYS)
def test_a_step_finds_its_call_by_an_index(plans: Plans, kind: str) -> None:
    step = Step(key=KEYS[kind], to="completed", output=1)
    statement = steps._TAKE[kind] if isinstance(plans, PostgreSQLPlans) else steps._MOVE
    plans.check(statement, given(step))


@pytest.mark.parametrize("scope", SCOPES)
def test_what_is_sealed_is_found_by_an_index(plans: Plans, scope: tuple[bool, bool]) -> None:
    operators = isinstance(plans, PostgreSQLPlans)
    plans.check(dangling._seal(*scope, operators=operators, waiting=True), {**SCOPE, "entry": ENTRY})
    # It finds the calls of one owner, and sorts the few of them that were just sealed.
    plans.check(dangling._sealed(*scope), SCOPE, sorts=True)


@pytest.mark.parametrize("filters", [("agent_id",), ("session_id",), ("tool_name",), ("since",), ("until",)])
def test_figures_of_a_part_read_that_part_alone(plans: Plans, filters: tuple[str, ...]) -> None:
    values = {"since": at(ROWS - 500), "until": at(500), **VALUES}
    chosen = {each: values[each] for each in filters} | {"open": True}
    # Ranking is sorting; there is no index by duration, which would cost every call a write.
    plans.check(tool_calls.STATS.statement(frozenset(chosen)), chosen, sorts=True)


def test_a_filter_that_no_index_serves_would_be_noticed(plans: Plans) -> None:
    table = ToolCallRecord.table()
    statement: Statement[Any] = Statement(
        sa.select(table.c.id).where(table.c.ordinal == sa.literal(1)).order_by(table.c.duration_ms)
    )
    with pytest.raises(AssertionError):
        plans.check(statement, {})
