"""Calls whose statements are explained as they are run, and then undone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.session import Call, Session
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.operation import Blocking, Repository, writes


@dataclass(slots=True)
class Planned:
    """A connection that has each statement explained before it is run."""

    inner: Any
    explain: Callable[[str, Sequence[object]], str]
    plans: list[str] = field(default_factory=list)

    @property
    def capabilities(self) -> Capabilities:
        found: Capabilities = self.inner.capabilities
        return found

    @property
    def max_payload(self) -> int:
        found: int = self.inner.max_payload
        return found

    def prepared(self, statement: Statement[Any]) -> Prepared[Any]:
        found: Prepared[Any] = self.inner.prepared(statement)
        return found

    def execute(self, prepared: Prepared[Any], values: list[object]) -> tuple[list[Any], int]:
        self.plans.append(self.explain(prepared.text, values))
        found: tuple[list[Any], int] = self.inner.execute(prepared, values)
        return found

    def execute_many(self, prepared: Prepared[Any], values: Sequence[Sequence[object]]) -> int:
        self.plans.append(self.explain(prepared.text, values[0]))
        found: int = self.inner.execute_many(prepared, values)
        return found

    def stream(self, prepared: Prepared[Any], values: list[object]) -> Iterator[Any]:
        return iter(self.inner.stream(prepared, values))

    def begin(self) -> None:
        self.inner.begin()

    def copy(self, table: str, columns: Sequence[str], chunks: Iterable[str], *, null: str) -> int:
        return int(self.inner.copy(table, columns, chunks, null=null))


class Undone(Exception):
    """Rolls everything back, so that each statement meets the same rows."""

    def __init__(self, plans: list[str]) -> None:
        self.plans = plans


class Planner(Repository[Blocking]):
    name = "planner"

    @writes
    def plans(
        self, session: Session, call: Callable[[Session], object], *, listing: bool = False, generic: bool = False
    ) -> None:
        """Raise Undone with the plans; ``generic`` adds those that know no values."""
        inner: Any = session._connection
        if inner.capabilities.backend == "postgresql":
            # To read a whole table, or to sort a few rows, may be cheaper in this small database; what is tested is
            # that nobody needs to. Without an index PostgreSQL does it all the same.
            inner.raw.execute("SET LOCAL enable_seqscan = off")
            if listing:
                inner.raw.execute("SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")

        def explain(text: str, values: Sequence[object]) -> str:
            if inner.capabilities.backend == "sqlite":
                rows = inner.raw.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall()
                return "\n".join(row[3] for row in rows)
            rows = inner.raw.cursor().execute(f"EXPLAIN (COSTS OFF) {text}", values).fetchall()
            return "\n".join(
                row[0] for row in [*rows, *(without_values(inner.raw, text, len(values)) if generic else [])]
            )

        planned = Planned(inner, explain)
        call(Session(planned, Call()))
        raise Undone(planned.plans)


def without_values(raw: Any, text: str, count: int) -> list[tuple[str]]:
    """Return the plan that knows no values, which a statement that is used often may get."""
    numbers = iter(range(1, count + 1))
    prepared = re.sub("%s", lambda _: f"${next(numbers)}", text).replace("%%", "%")
    raw.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    raw.execute(f"PREPARE explained AS {prepared}".encode())
    try:
        arguments = f"({', '.join(['NULL'] * count)})" if count else ""
        rows: list[tuple[str]] = raw.execute(f"EXPLAIN (COSTS OFF) EXECUTE explained{arguments}".encode()).fetchall()
        return rows
    finally:
        raw.execute("DEALLOCATE explained")
        raw.execute("SET LOCAL plan_cache_mode = auto")
