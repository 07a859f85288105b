"""Messages, and the users of the sessions that they stand in."""

from __future__ import annotations

from typing import Final

from agentos_store.importers.agentos.records import SessionRecord
from agentos_store.importers.agentos.references import References
from agentos_store.importers.problems import SetAside
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.row import Row, ulid_time

_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})


def read_message(row: Row, references: References, ids: str) -> MessageRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    message_id = row.identifier("message_id")
    session_id = row.identifier("session_id")
    if not references.has_session(session_id):
        raise SetAside("its session is not in the registry")
    role = read_role(row)
    if not references.keys.add(ids, message_id):
        raise SetAside("an earlier row has the same message_id")
    content = row.exact_text("content")
    metadata = row.object("metadata")
    around = ulid_time(message_id) or references.session_created_at(session_id)
    return MessageRecord(
        table=row.table,
        source_key=row.key,
        id=message_id,
        session_id=session_id,
        role=role,
        content=content,
        created_at=row.first_time("created_at", otherwise=around),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def read_role(row: Row) -> str:
    """Return the role; a message without one that is known is set aside, for nobody can tell who spoke."""
    role = row.word("role")
    if role not in _ROLES:
        raise SetAside("its role is not known" if role else "it has no role")
    if role != row.text("role"):
        row.repaired(f"role: {row.text('role')!r} was read as {role!r}")
    return role


def read_user(user_id: str, session: SessionRecord) -> UserRecord:
    """Make the record of a user whom a session names by this word."""
    return UserRecord(
        table="users", id=user_id, name=user_id, created_at=session.created_at, updated_at=session.created_at
    )
