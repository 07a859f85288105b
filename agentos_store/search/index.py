"""The index: documents go in and out in the transaction that writes what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import CTE, Insert, Select, bindparam, column, delete, func, literal, select
from sqlalchemy.dialects import postgresql

from agentos_store.base import Base
from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.search.columns import Tokens, TokensOfParts
from agentos_store.search.models import SearchDocument, family_of
from agentos_store.search.parts import Indexed

B = TypeVar("B", bound=Base)

DOCUMENTS = SearchDocument.table()


def put(session: Session, kind: str, documents: Sequence[Indexed]) -> None:
    """Index documents as they are now, whether they were indexed or not.

    The caller has changed or locked the rows that they are made of, in the same transaction.
    """
    session.execute_many(_PUT, [row for document in documents for row in _rows(kind, document)])
    session.execute_many(_CUT, [_values(kind, document) for document in documents])


def add(session: Session, kind: str, documents: Sequence[Indexed]) -> None:
    """Index documents that are not indexed yet, in one round trip where the database can."""
    rows = [row for document in documents for row in _rows(kind, document)]
    if rows and session.capabilities.data_modifying_cte:
        session.execute(_ADD, {"added": rows})
    else:
        session.execute_many(_PUT, rows)


def remove(session: Session, kind: str, keys: Sequence[str]) -> None:
    """Take documents out; those that are not there are no error."""
    session.execute_many(_REMOVE, [{"kind": kind, "key": key} for key in keys])


class Writing(Generic[B]):
    """A statement that changes one row and indexes it, in one round trip where the database can.

    ``change`` is an INSERT or an UPDATE that returns the whole row; where it changes none, nothing is indexed.
    """

    def __init__(self, change: Any, *, returns: type[B], kind: str, called: Mapping[str, str] | None = None) -> None:
        self._kind = kind
        self._alone: Statement[B] = Statement(change, returns=returns, called=called)
        self._joint: Statement[B] = Statement(
            _indexing(change.cte("changed"), returns), returns=returns, writes=True, called=called
        )

    def first(self, session: Session, values: Mapping[str, object], document: Indexed) -> B | None:
        """Change the row, and index it as this document; return it as it is then, or None."""
        if session.capabilities.data_modifying_cte:
            of_document = {f"document_{name}": value for name, value in _values(self._kind, document).items()}
            return session.first(self._joint, {**values, **of_document})
        changed = session.first(self._alone, values)
        if changed is not None:
            put(session, self._kind, [document])
        return changed


class Removing(Generic[B]):
    """A DELETE that returns whole rows, and takes them out of the index, in one round trip where the database can."""

    def __init__(self, removal: Any, *, returns: type[B], kind: str) -> None:
        self._kind = kind
        self._key = _key_name(returns)
        self._alone: Statement[B] = Statement(removal, returns=returns)
        gone = removal.cte("gone")
        forgotten = delete(DOCUMENTS).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.key == gone.c[_key_name(returns)])
        self._joint: Statement[B] = Statement(
            select(gone).add_cte(forgotten.cte("forgotten")), returns=returns, writes=True
        )

    def all(self, session: Session, values: Mapping[str, object]) -> list[B]:
        """Delete the rows and return them as they were."""
        if session.capabilities.data_modifying_cte:
            return session.all(self._joint, values)
        gone = session.all(self._alone, values)
        remove(session, self._kind, [getattr(row, self._key) for row in gone])
        return gone


def _rows(kind: str, document: Indexed) -> Iterator[dict[str, object]]:
    for part, tokens in enumerate(document.parts):
        yield _values(kind, document) | {"part": part, "tokens": tokens}


def _values(kind: str, document: Indexed) -> dict[str, object]:
    count = len(document.parts)
    return {
        "kind": kind,
        "key": document.key,
        "parts": count,
        "length": document.length,
        "family": family_of(kind, count),
        "text_hash": document.text_hash,
        "tokens_of_parts": document.parts,
    }


def _key_name(model: type[Base]) -> str:
    (key,) = model.table().primary_key
    return key.name


def _bind(name: str) -> Any:
    return bindparam(name, type_=DOCUMENTS.c[name].type)


def _upsert(statement: Any) -> Insert:
    new = statement.excluded
    changes = {name: new[name] for name in ("parts", "family", "length", "text_hash", "tokens")}
    upsert: Insert = statement.on_conflict_do_update(index_elements=["kind", "key", "part"], set_=changes)
    return upsert


_COLUMNS = [column for column in DOCUMENTS.c if column.identity is None]


def _indexing(changed: CTE, model: type[Base]) -> Select[Any]:
    """Return the query for the changed rows that indexes them on the way, with data-modifying expressions."""
    key = changed.c[_key_name(model)]
    tokens = bindparam("document_tokens_of_parts", type_=TokensOfParts())
    part = func.unnest(tokens).table_valued(column("tokens", Tokens()), with_ordinality="number", name="part")
    part = part.render_derived()
    given = {
        name: bindparam(f"document_{name}", type_=DOCUMENTS.c[name].type)
        for name in ("kind", "parts", "family", "length", "text_hash")
    }
    values = given | {"key": key, "part": part.c.number - 1, "tokens": part.c.tokens}
    rows = select(*(values[each.name] for each in _COLUMNS)).select_from(changed.join(part, literal(True)))
    indexed = _upsert(postgresql.insert(DOCUMENTS).from_select(_COLUMNS, rows, include_defaults=False))
    surplus = delete(DOCUMENTS).where(
        DOCUMENTS.c.kind == given["kind"], DOCUMENTS.c.key == key, DOCUMENTS.c.part >= given["parts"]
    )
    return select(changed).add_cte(indexed.cte("indexed"), surplus.cte("surplus"))


_OF_KEY = (DOCUMENTS.c.kind == _bind("kind"), DOCUMENTS.c.key == _bind("key"))
# One spelling serves both dialects.
_PUT: Statement[Any] = Statement(
    _upsert(postgresql.insert(DOCUMENTS).values({c.name: _bind(c.name) for c in _COLUMNS}))
)
_ADDED, _VALUES = recordset("added", _COLUMNS)
_ADD: Statement[Any] = Statement(
    _upsert(
        postgresql.insert(DOCUMENTS).from_select(
            _COLUMNS, select(*(_VALUES[c.name] for c in _COLUMNS)).select_from(_ADDED), include_defaults=False
        )
    )
)
_CUT: Statement[Any] = Statement(delete(DOCUMENTS).where(*_OF_KEY, DOCUMENTS.c.part >= _bind("parts")))
_REMOVE: Statement[Any] = Statement(delete(DOCUMENTS).where(*_OF_KEY))
