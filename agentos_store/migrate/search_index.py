"""The FTS5 table beside ``search_documents`` on SQLite, as text, for the drift check.

The revision that made it holds the same text: a change here needs a revision that makes the table anew.
"""

from __future__ import annotations

from collections.abc import Iterator

_FORGET = (
    "INSERT INTO search_index (search_index, rowid, family, tokens)"
    " VALUES ('delete', OLD.doc_id, OLD.family, OLD.tokens);"
)
_LEARN = "INSERT INTO search_index (rowid, family, tokens) VALUES (NEW.doc_id, NEW.family, NEW.tokens);"


def search_index_sqlite() -> Iterator[str]:
    """Yield the statements that make the index and the triggers that keep it.

    Its tokenizer splits at spaces and leaves tokens as they are: no other ASCII character is in them, and what is not
    ASCII it takes for a letter.
    """
    yield (
        "CREATE VIRTUAL TABLE search_index USING fts5"
        " (family, tokens, content = 'search_documents', content_rowid = 'doc_id', tokenize = 'ascii', columnsize = 0)"
    )
    for event, body in (("insert", _LEARN), ("update", f"{_FORGET} {_LEARN}"), ("delete", _FORGET)):
        yield (
            f"CREATE TRIGGER tr_search_documents_{event} AFTER {event.upper()} ON search_documents"
            f" FOR EACH ROW BEGIN {body} END"
        )
