"""The database's clock in a statement: what leases are measured by, so that no two machines' clocks are compared."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.types import UTCDateTime


class from_now(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """The instant so many seconds from now; ``from_now(0)`` is now.

    It moves within a transaction, and stands still within a statement.
    """

    type = UTCDateTime()
    inherit_cache = True
    name = "from_now"


# As a query of its own it is asked once for a statement; asked for each row, it costs a call each time, and PostgreSQL
# searches no index for it.


@compiles(from_now, "postgresql")
def _postgresql(element: from_now, compiler: Any, **options: Any) -> str:
    return f"(SELECT clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(from_now, "sqlite")
def _sqlite(element: from_now, compiler: Any, **options: Any) -> str:
    return f"(SELECT agentos_from_now({compiler.process(element.clauses, **options)}))"


def seconds(name: str) -> Any:
    """Return the named value of a number of seconds."""
    return bindparam(name, type_=Float(53))
