"""What is asked of the rows of owners themselves: they are closed, held, looked at, and removed last."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, bindparam, delete, func, insert, literal, select, update
from sqlalchemy import Text as PlainText

from agentos_store.agents.models import Agent
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.models import User
from agentos_store.engine.statement import Statement
from agentos_store.tasks.models import Task, TaskAuditHead

_SESSIONS, _AGENTS, _TASKS, _USERS = Conversation.table(), Agent.table(), Task.table(), User.table()
_KEY = bindparam("key", type_=_SESSIONS.c.id.type)
_NOW = bindparam("now", type_=_SESSIONS.c.deleted_at.type)
_OPEN_OF_USER = (
    select(_SESSIONS.c.id)
    .where(_SESSIONS.c.user_id == _KEY, _SESSIONS.c.deleted_at.is_(None))
    .limit(bindparam("limit_"))
)
_HIDDEN = {"deleted_at": _NOW, "updated_at": _NOW}
CLOSE_SOME: Statement[Any] = Statement(
    update(_SESSIONS).where(_SESSIONS.c.id.in_(_OPEN_OF_USER.correlate(None))).values(_HIDDEN).returning(_SESSIONS.c.id)
)
CLOSE: Statement[Any] = Statement(
    update(_SESSIONS).where(_SESSIONS.c.id == _KEY, _SESSIONS.c.deleted_at.is_(None)).values(_HIDDEN)
)


def _hold(table: Table) -> Statement[Any]:
    (key,) = table.primary_key
    return Statement(select(key).where(key == _KEY).with_for_update())


def _one(column: Column[Any], *where: Any) -> Statement[Any]:
    return Statement(select(literal(1)).where(column == _KEY, *where).limit(literal(1)))


def _tasks(column: Column[Any]) -> Statement[Any]:
    return Statement(select(_TASKS.c.task_id).where(column == _KEY).limit(bindparam("limit_")))


HOLD_SESSION, HOLD_AGENT, HOLD_TASK, HOLD_USER = map(_hold, (_SESSIONS, _AGENTS, _TASKS, _USERS))
SESSION_OF_USER = _one(_SESSIONS.c.user_id)
TASKS_OF_SESSION, TASKS_OF_AGENT = _tasks(_TASKS.c.session_id), _tasks(_TASKS.c.agent_id)
AGENT_OF_SESSION = _one(_AGENTS.c.session_id, _AGENTS.c.agent_id != bindparam("but", type_=PlainText()))
_HEADS = TaskAuditHead.table()
REMOVE_TASK: Statement[Any] = Statement(delete(_TASKS).where(_TASKS.c.task_id == _KEY))
REMOVE_HEAD: Statement[Any] = Statement(delete(_HEADS).where(_HEADS.c.task_id == _KEY))
REMOVE_AGENT: Statement[Any] = Statement(delete(_AGENTS).where(_AGENTS.c.agent_id == _KEY))
REMOVE_USER: Statement[Any] = Statement(delete(_USERS).where(_USERS.c.id == _KEY))

# A table of its own metadata: the models know nothing of it, and its name is the column that takes its commands.
_FULL_TEXT = Table("search_index", MetaData(), Column("search_index", PlainText()), Column("rank", Integer()))
MERGE: Statement[Any] = Statement(insert(_FULL_TEXT).values(search_index="merge", rank=bindparam("pages")))
CHANGES: Statement[Any] = Statement(select(func.total_changes()))
