"""SQLAlchemy written by hand for the same work: Core, and the ORM."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, insert, select, update
from sqlalchemy.orm import Session

from benchmarks import rows
from benchmarks.conversations import content
from benchmarks.conversations.tables import Conversation, Said
from benchmarks.handwritten import Handwritten

SESSIONS: Table = Conversation.metadata.tables["sessions"]
MESSAGES: Table = Said.metadata.tables["messages"]


class _Handwritten(Handwritten):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._keys = content.keys()


class Core(_Handwritten):
    """Statements of Core, built at each call as they stand in the code."""

    def append(self, session_id: str) -> object:
        """Add a message and move the counters."""
        return self.append_many(session_id, [content.MESSAGE])

    def append_many(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> object:
        """Add many at once."""
        with self.engine.begin() as connection:
            return self._add(connection, session_id, messages, 0)

    def _add(self, connection: Connection, session_id: str, messages: Sequence[Mapping[str, Any]], first: int) -> int:
        at, length = rows.now(), len(messages)
        moved = {
            "next_seq": SESSIONS.c.next_seq + length,
            "message_count": SESSIONS.c.message_count + length,
            "total_tokens": SESSIONS.c.total_tokens + content.TOKENS * length,
            "updated_at": at,
            # So that a search knows what to index, which all contestants leave to it.
            "unindexed_from": func.coalesce(SESSIONS.c.unindexed_from, SESSIONS.c.next_seq),
        }
        wanted = (SESSIONS.c.id == session_id, SESSIONS.c.deleted_at.is_(None))
        drawn = update(SESSIONS).where(*wanted).values(moved).returning(SESSIONS.c.next_seq, SESSIONS.c.generation)
        next_seq, generation = connection.execute(drawn).one()
        added = [
            {
                "id": next(self._keys),
                "session_id": session_id,
                "seq": next_seq - length + i,
                "from_generation": generation,
                **_values(message, first + i, at),
            }
            for i, message in enumerate(messages)
        ]
        connection.execute(insert(MESSAGES), added)
        return int(next_seq) - length

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Read the list, compare it and add what is new."""
        asked = select(MESSAGES.c.role, MESSAGES.c.content, MESSAGES.c.tool_call_id).where(
            MESSAGES.c.session_id == session_id, MESSAGES.c.to_generation.is_(None)
        )
        with self.engine.begin() as connection:
            connection.execute(select(SESSIONS.c.id).where(SESSIONS.c.id == session_id).with_for_update()).one()
            there = connection.execute(asked.order_by(MESSAGES.c.seq)).all()
            content.expect_same([tuple(row) for row in there], [_key(message) for message in messages])
            self._add(connection, session_id, messages[len(there) :], len(there))

    def last(self, session_id: str) -> list[dict[str, Any]]:
        """Return the last messages as a language model wants them."""
        columns = (MESSAGES.c[name] for name in ("role", "content", "name", "tool_calls", "tool_call_id"))
        asked = (
            select(*columns)
            .where(MESSAGES.c.session_id == session_id, MESSAGES.c.to_generation.is_(None))
            .order_by(MESSAGES.c.seq.desc())
            .limit(content.LAST)
        )
        with self.engine.connect() as connection:
            found = connection.execute(asked).all()
        return [content.plain(*row) for row in reversed(found)]

    def latest(self, user_id: str) -> Sequence[Any]:
        """Return the sessions of a user that were in use last."""
        asked = (
            select(SESSIONS)
            .where(SESSIONS.c.user_id == user_id, SESSIONS.c.deleted_at.is_(None))
            .order_by(SESSIONS.c.updated_at.desc(), SESSIONS.c.id.desc())
            .limit(content.LATEST)
        )
        with self.engine.connect() as connection:
            return connection.execute(asked).all()

    @staticmethod
    def keys(sessions: Sequence[Any]) -> list[str]:
        """Return the keys of sessions."""
        return [session.id for session in sessions]


class ORM(_Handwritten):
    """Objects and a unit of work."""

    def append(self, session_id: str) -> object:
        """Add a message and move the counters."""
        return self.append_many(session_id, [content.MESSAGE])

    def append_many(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> object:
        """Add many at once."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            conversation = session.get_one(Conversation, session_id, with_for_update=True)
            return self._add(session, conversation, messages, 0)

    def _add(
        self, session: Session, conversation: Conversation, messages: Sequence[Mapping[str, Any]], first: int
    ) -> list[Said]:
        at = rows.now()
        added = [
            Said(
                id=next(self._keys),
                session_id=conversation.id,
                seq=conversation.next_seq + i,
                from_generation=conversation.generation,
                **{("metadata_" if name == "metadata" else name): value for name, value in values.items()},
            )
            for i, message in enumerate(messages)
            for values in (_values(message, first + i, at),)
        ]
        session.add_all(added)
        if conversation.unindexed_from is None:
            conversation.unindexed_from = conversation.next_seq
        conversation.next_seq += len(messages)
        conversation.message_count += len(messages)
        conversation.total_tokens += content.TOKENS * len(messages)
        conversation.updated_at = at
        return added

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Read the list, compare it and add what is new."""
        asked = select(Said).where(Said.session_id == session_id, Said.to_generation.is_(None)).order_by(Said.seq)
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            conversation = session.get_one(Conversation, session_id, with_for_update=True)
            there = session.scalars(asked).all()
            keys = [(each.role, each.content, each.tool_call_id) for each in there]
            content.expect_same(keys, [_key(message) for message in messages])
            self._add(session, conversation, messages[len(there) :], len(there))

    def last(self, session_id: str) -> list[dict[str, Any]]:
        """Return the last messages as a language model wants them."""
        asked = (
            select(Said)
            .where(Said.session_id == session_id, Said.to_generation.is_(None))
            .order_by(Said.seq.desc())
            .limit(content.LAST)
        )
        with Session(self.engine) as session:
            found = session.scalars(asked).all()
            return [
                content.plain(each.role, each.content, each.name, each.tool_calls, each.tool_call_id)
                for each in reversed(found)
            ]

    def latest(self, user_id: str) -> Sequence[Any]:
        """Return the sessions of a user that were in use last."""
        asked = (
            select(Conversation)
            .where(Conversation.user_id == user_id, Conversation.deleted_at.is_(None))
            .order_by(Conversation.updated_at.desc(), Conversation.id.desc())
            .limit(content.LATEST)
        )
        with Session(self.engine) as session:
            return session.scalars(asked).all()

    @staticmethod
    def keys(sessions: Sequence[Any]) -> list[str]:
        """Return the keys of sessions."""
        return [session.id for session in sessions]


def _values(message: Mapping[str, Any], place: int, at: dt.datetime) -> dict[str, Any]:
    types, tools = content.found_by(place)
    return {
        "role": message["role"],
        "content": message["content"],
        "tool_call_id": message.get("tool_call_id"),
        "content_types": types,
        "tool_names": tools,
        "token_count": message["token_count"],
        "metadata": {},
        "created_at": at,
    }


def _key(message: Mapping[str, Any]) -> tuple[Any, ...]:
    return message["role"], message["content"], message.get("tool_call_id")
