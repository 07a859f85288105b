"""Many keys in one statement: they travel as one JSON text and are a table in the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import TableValuedAlias, bindparam, column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.types import Gate, Identifier
from agentos_store.types.gate import Encode, PostgreSQLType

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class KeyList(Gate[Any]):
    """A list of keys, as a JSON array."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Name the type that the function takes."""
        return PostgreSQLType("JSON") if dialect.name == "postgresql" else sa.TEXT()

    def strict_encoder(self, dialect: Dialect) -> Encode:  # noqa: ARG002  one text for both
        """Write them."""
        return lambda value, _name: json.dumps(value)


class _EachKey(FunctionElement[Any]):
    inherit_cache = True
    name = "each_key"


def keys_in(name: str) -> TableValuedAlias:
    """Return the table of the keys in the value of this name: ``value``."""
    found = _EachKey(bindparam(name, type_=KeyList())).table_valued(column("value", Identifier()))
    return found.alias(name)


@compiles(_EachKey, "postgresql")
def _postgresql(element: _EachKey, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text({compiler.process(element.clauses, **options)})"


@compiles(_EachKey, "sqlite")
def _sqlite(element: _EachKey, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"
