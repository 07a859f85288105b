"""Locks of a transaction that belong to no row: one for each purpose in each schema.

The number of the lock is made of both, so that tenants that share a database do not wait for each other.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType


def lock_number(purpose: str, schema: str) -> int:
    """Return the number of the lock. It stays the same for ever: code of several versions meets on one server."""
    digest = hashlib.sha256(f"agentos_store {purpose} {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class one_at_a_time(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """``one_at_a_time("dependencies")`` waits until no other transaction of the schema holds this lock, and takes it.

    Only for a database that has such locks: see ``Capabilities.advisory_locks``.
    """

    type = NullType()
    inherit_cache = False
    name = "one_at_a_time"

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        super().__init__()


@compiles(one_at_a_time, "postgresql")
def _postgresql(element: one_at_a_time, compiler: Any, **_: Any) -> str:
    schema = compiler.schema_translate_map[None]
    return f"pg_advisory_xact_lock({lock_number(element.purpose, schema)})"
