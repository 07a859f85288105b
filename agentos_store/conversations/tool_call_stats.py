"""How tools do: how often they are called, how often they fail, how long they take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import case, func, or_, select

from agentos_store.conversations.tool_call_steps import CALLS
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.page import Filter

PERCENT = 95
DIGITS = 6
"""Of a mean in milliseconds. Databases add floats up in different orders; to the nanosecond they agree."""


@dataclass(frozen=True, slots=True)
class ToolStats:
    """How one tool did."""

    tool_name: str
    calls: int
    """Whatever became of them."""
    failures: int
    """Calls that failed, or whose result is an error; a call that was denied or sealed gave one too."""
    mean_ms: float | None
    """Milliseconds; None while no call has a duration."""
    p95_ms: float | None
    """By the nearest rank: the shortest duration that 95 of 100 calls did not exceed."""


class Stats:
    """The statements, one for each combination of filters that is used."""

    def __init__(self, filters: Mapping[str, Filter]) -> None:
        self.filters = filters
        self.statement = cache(self._build)

    def of(self, session: Session, given: Mapping[str, object]) -> Sequence[ToolStats]:
        """Return the figures of each tool that was called, by the tools' names."""
        values = {
            name: self.filters[name].type.check(value, name) for name, value in given.items() if value is not None
        }
        return [
            ToolStats(name, calls, failures, None if mean is None else round(mean, DIGITS), p95)
            for name, calls, failures, mean, p95 in session.all(self.statement(frozenset(values)), values)
        ]

    def _build(self, names: Iterable[str]) -> Statement[Any]:
        table = CALLS.c
        # Those without a duration come last on both databases, which differ in where they sort NULL.
        order = (table.duration_ms.is_(None), table.duration_ms)
        ranked = (
            select(
                table.tool_name,
                table.duration_ms,
                case((or_(table.state == "failed", table.is_error), 1), else_=0).label("failed"),
                func.row_number().over(partition_by=table.tool_name, order_by=order).label("place"),
                func.count(table.duration_ms).over(partition_by=table.tool_name).label("measured"),
            )
            .where(*(self.filters[name].condition(name) for name in sorted(names)))
            .subquery("ranked")
        )
        columns = ranked.c
        rank = (columns.measured * PERCENT + 99) // 100
        return Statement(
            select(
                columns.tool_name,
                func.count(),
                func.sum(columns.failed),
                func.avg(columns.duration_ms),
                func.max(case((columns.place == rank, columns.duration_ms))),
            )
            .group_by(columns.tool_name)
            .order_by(columns.tool_name)
        )
