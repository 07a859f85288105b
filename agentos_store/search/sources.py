"""Where documents come from: what a domain says of its table, so that its index can be made again and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import and_, bindparam, delete, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from agentos_store.base import Base
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.search.index import DOCUMENTS
from agentos_store.types import Text

B = TypeVar("B", bound=Base)


class Source(Generic[B]):
    """A table whose rows are documents.

    ``texts`` gives what is searched of a row; ``where`` keeps the rows that are. Where the index lags behind, ``due``
    is the condition of the rows that are in it by now; that others are not is no fault. Of such rows the texts never
    change, so that nothing but their removal is kept off while they are indexed.
    """

    def __init__(
        self,
        kind: str,
        model: type[B],
        texts: Callable[[B], Sequence[str]],
        *,
        where: ColumnElement[bool] | None = None,
        due: ColumnElement[bool] | None = None,
    ) -> None:
        table = model.table()
        (key,) = table.primary_key
        self.kind = kind
        self.texts = texts
        self.lags = due is not None
        self._key = key.key
        is_document = () if where is None else (where,)
        rows = select(table).where(key > bindparam("after", type_=Text()), *is_document).order_by(key)
        rows = rows.limit(bindparam("limit_"))
        self._rows: Statement[B] = Statement(rows, returns=model)
        self._locked: Statement[B] = Statement(rows.with_for_update(read=self.lags, key_share=self.lags), returns=model)
        of_kind = and_(
            DOCUMENTS.c.kind == bindparam("kind", type_=DOCUMENTS.c.kind.type),
            DOCUMENTS.c.key > bindparam("after", type_=Text()),
        )
        # A document and what it is made of are committed together, so that one statement sees both or neither.
        exists = select(key).where(key == DOCUMENTS.c.key, *is_document).exists()
        self._orphans: Statement[Any] = Statement(
            delete(DOCUMENTS).where(of_kind, DOCUMENTS.c.key <= bindparam("last", type_=Text()), ~exists)
        )
        of_row = (
            DOCUMENTS.c.kind == kind,
            DOCUMENTS.c.key == key,
            DOCUMENTS.c.part == literal(0, DOCUMENTS.c.part.type),
        )
        document = select(DOCUMENTS.c.part).where(*of_row).scalar_subquery()
        overdue = select(func.count()).select_from(table).where(*is_document, document.is_(None))
        self._overdue: Statement[Any] = Statement(overdue if due is None else overdue.where(due))
        self._orphans_to_the_end: Statement[Any] = Statement(delete(DOCUMENTS).where(of_kind, ~exists))

    def batch(self, session: Session, after: str, limit: int, *, lock: bool = False) -> list[tuple[str, Sequence[str]]]:
        """Return keys and texts of the rows after a key, in the order of the keys."""
        rows = session.all(self._locked if lock else self._rows, {"after": after, "limit_": limit})
        return [(getattr(row, self._key), self.texts(row)) for row in rows]

    def walk(self, session: Session, size: int) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield keys and texts of all rows, a batch at a time."""
        after = ""
        while batch := self.batch(session, after, size):
            yield from batch
            after = batch[-1][0]

    def count_overdue(self, session: Session) -> int:
        """Return how many rows are not indexed that should be by now."""
        found = session.first(self._overdue)
        assert found is not None
        return int(found[0])

    def remove_orphans(self, session: Session, after: str, last: str | None) -> int:
        """Take out the documents after a key, up to another or all, whose rows are gone; return how many parts."""
        values = {"kind": self.kind, "after": after, "last": last}
        return session.execute(self._orphans_to_the_end if last is None else self._orphans, values)


_INDEXED: Statement[Any] = Statement(
    select(
        DOCUMENTS.c.key,
        func.min(DOCUMENTS.c.text_hash),
        func.max(DOCUMENTS.c.text_hash),
        func.max(DOCUMENTS.c.parts),
        func.count(),
    )
    .where(
        DOCUMENTS.c.kind == bindparam("kind", type_=DOCUMENTS.c.kind.type),
        DOCUMENTS.c.key > bindparam("after", type_=Text()),
    )
    .group_by(DOCUMENTS.c.key)
    .order_by(DOCUMENTS.c.key)
    .limit(bindparam("limit_"))
)


def walk_indexed(session: Session, kind: str, size: int) -> Iterator[tuple[str, str]]:
    """Yield the keys of all indexed documents of a kind with their hashes; '' for one of which a part is missing."""
    after = ""
    while rows := session.all(_INDEXED, {"kind": kind, "after": after, "limit_": size}):
        for key, least, greatest, parts, count in rows:
            yield key, least if least == greatest and parts == count else ""
        after = rows[-1][0]
