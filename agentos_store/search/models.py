"""What is searched: for each document its tokens, in parts that an index can hold."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import CheckConstraint, Identity, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base
from agentos_store.search.columns import Tokens
from agentos_store.types import Identifier, Int64, Text

KINDS = ("memory", "chunk", "message")
"""What is searched; each kind has an index of its own."""


def family_of(kind: str, parts: int) -> str:
    """Return what tells an index the kind, and whether a document has more than one part."""
    return kind if parts == 1 else f"{kind}parts"


class SearchDocument(Base):
    """A part of a document that can be found: a memory item, a chunk or a message.

    Derived from the document's texts, and made again by ``search.rebuild``. On SQLite the FTS5 table ``search_index``
    lies beside it and is kept by triggers, hung on ``doc_id``, which a dump keeps.
    """

    __tablename__ = "search_documents"
    entity: ClassVar[str] = "search document"

    doc_id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    kind: Mapped[str] = mapped_column(Text(1, 64))
    key: Mapped[str] = mapped_column(Identifier())
    """The document's key in its own table."""
    part: Mapped[int] = mapped_column(Int64())
    """0, 1, … of a long document; the first tokens of a part are the last ones of the part before."""
    parts: Mapped[int] = mapped_column(Int64())
    """How many the document has."""
    family: Mapped[str] = mapped_column(Text(1, 80))
    """The kind, with ``parts`` after it when there are several."""
    length: Mapped[int] = mapped_column(Int64())
    """How many tokens the whole document has."""
    text_hash: Mapped[str] = mapped_column(Text(max_length=64))
    """SHA-256 over the texts of the whole document: whether they are still what was indexed."""
    tokens: Mapped[str] = mapped_column(Tokens())

    __table_args__ = (
        UniqueConstraint("kind", "key", "part"),
        CheckConstraint("part >= 0", name="part_not_negative"),
        CheckConstraint("parts > 0", name="parts_positive"),
        CheckConstraint("length >= 0", name="length_not_negative"),
        *(
            Index(
                f"ix_search_documents_{family}",
                "tokens",
                postgresql_using="gin",
                postgresql_where=text(f"family = '{family}'"),
            ).ddl_if(dialect="postgresql")
            for kind in KINDS
            for family in (family_of(kind, 1), family_of(kind, 2))
        ),
        {"sqlite_autoincrement": True},
    )
