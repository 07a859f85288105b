"""Whether a text holds another one, character by character, with no index to help."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class holds(FunctionElement[bool]):  # noqa: N801  a function of SQL
    """``holds(text, part)``: true where the part occurs in the text."""

    type = Boolean()
    inherit_cache = True
    name = "holds"


@compiles(holds, "postgresql")
def _postgresql(element: holds, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)}) > 0"


@compiles(holds, "sqlite")
def _sqlite(element: holds, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)}) > 0"
