"""The way from a person or an agent to all that is theirs: the same whether it is counted or erased."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import MetaData, Table, bindparam, exists, func, literal, or_, select

from agentos_store.agents.models import Agent, Snapshot
from agentos_store.conversations.context_models import Context
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.models import User
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError
from agentos_store.events.models import Event
from agentos_store.operation import Access
from agentos_store.operations.forgetting.classification import ACTORS, Owner
from agentos_store.operations.forgetting.statements import Naming, Owned, by
from agentos_store.tasks.link_models import TaskDependency
from agentos_store.tasks.models import Task, TaskAudit
from agentos_store.tasks.verification import LEAST

PAGE = 200
"""Keys of owners that are read at once."""

ROUNDS = 20
"""How often what was made meanwhile is looked for."""

LOOKED_AT = 5_000
"""Rows that are looked at in one step for the name of somebody."""

NAMINGS = tuple((actor, Naming(actor)) for actor in ACTORS)


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about a task."""

    shared: bool
    """It belongs to a project, or other tasks need it: so it stays, without what it said."""
    status: str


class Walk(ABC):
    """Goes from an owner to what is theirs."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    # --- the way

    def user(self, key: str) -> None:
        """Walk over a person."""
        names = self.ask(lambda session: names_of(session, key))
        for round_ in range(ROUNDS):
            self.close_sessions(key)
            for session_id in self.keys(_SESSIONS_OF_USER, key):
                self.session(session_id, user=key)
            self.rows(Owner.USER, key)
            if round_ == 0:
                self.actors(names, agents=False)
            self.tidy()
            if self.end_user(key):
                return
        raise ConflictError("user", key, "sessions keep being made for it; stop whoever makes them, and call again")

    def agent(self, key: str, *, subject: bool = False) -> None:
        """Walk over an agent; ``subject`` for the one that is forgotten, and not for one of a person's own."""
        conversation = self.ask(lambda session: conversation_of(session, key)) if subject else None
        for round_ in range(ROUNDS):
            if conversation is not None:
                self.session(conversation, but=key)
            for task_id in self.keys(_TASKS_OF_AGENT, key):
                if subject:
                    self.executed(task_id, key)
                else:
                    self.task(task_id)
            self.rows(Owner.AGENT, key, stays=subject)
            if subject and round_ == 0:
                self.actors([key], agents=True)
            if subject:
                self.tidy()
            if self.end_agent(key, subject=subject):
                return
        raise ConflictError("agent", key, "it keeps being written to; stop whoever does, and call again")

    def session(self, key: str, *, user: str | None = None, but: str | None = None) -> None:
        """Walk over a conversation, with the agents that hold it, but one."""
        self.close_session(key)
        for _ in range(ROUNDS):
            for agent_id in self.keys(_AGENTS_OF_SESSION, key):
                if agent_id == but:
                    continue
                if user is None or self.ask(_IsShared(agent_id, user)):
                    self.detach(agent_id)
                else:
                    self.agent(agent_id)
            for task_id in self.keys(_TASKS_OF_SESSION, key):
                self.task(task_id)
            self.rows(Owner.SESSION, key)
            if self.end_session(key, but=but):
                return
        raise ConflictError("session", key, "it keeps being written to; stop whoever does, and call again")

    def task(self, key: str) -> None:
        """Walk over a task of somebody's own conversation."""
        for _ in range(ROUNDS):
            standing = self.ask(lambda session: standing_of(session, key))
            if standing is None:
                return
            if standing.shared:
                self.cancel(key, standing)
            self.rows(Owner.TASK, key, stays=standing.shared)
            self.audits(key, shared=standing.shared)
            if self.end_task(key, shared=standing.shared):
                return
        raise ConflictError("task", key, "it keeps being written to; stop whoever does, and call again")

    def actors(self, names: Sequence[str], *, agents: bool) -> None:
        """Look through all that may name somebody who did something."""
        for actor, naming in NAMINGS:
            if not actor.agents_only or agents:
                self.naming(naming, names)
        texts = [text for text, _ in by(names)]
        last: int | None = self.ask(lambda session: session.all(_LAST_AUDIT)[0][0])
        after = LEAST
        while last is not None and after < last:
            # By what there is, for numbers may lie far apart.
            upto: int | None = self.ask(partial(_next_audits, after=after))
            if upto is None:
                return
            self.naming_audits(after, upto, texts)
            after = upto

    # --- what is read on the way

    def ask(self, body: Callable[[Session], Any]) -> Any:
        """Read something."""
        return self.backend.run(Access.READ, "forget", body, repeatable=True)

    def keys(self, owned: Owned, key: str) -> Iterator[str]:
        """Yield the keys of the owners that are another owner's by now; those to come are for the next round."""
        after = ""
        upto: str | None = self.ask(partial(owned.last, key=key))
        while upto is not None:
            page: list[str] = self.ask(partial(owned.between, key=key, after=after, upto=upto, limit=PAGE))
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]

    def named(self, naming: Naming, names: Sequence[str]) -> Iterator[list[Any]]:
        """Yield the keys of rows that name somebody, some at a time."""
        after = None
        while True:
            after, found = self.ask(partial(naming.next, after=after, size=LOOKED_AT, names=names))
            if found:
                yield found
            if after is None:
                return

    # --- what is done on the way

    def close_sessions(self, user: str) -> None:  # noqa: B027  whoever only counts does nothing here
        """Let nobody say anything more in a person's conversations."""

    def close_session(self, key: str) -> None:  # noqa: B027  whoever only counts does nothing here
        """Let nobody say anything more in a conversation."""

    def cancel(self, key: str, standing: Standing) -> None:  # noqa: B027  whoever only counts does nothing here
        """Let nobody work on a task any more that is about to lose what it asks for."""

    def tidy(self) -> None:  # noqa: B027  whoever only counts does nothing here
        """Let the index of the search drop what it keeps of what was removed."""

    @abstractmethod
    def rows(self, owner: Owner, key: str, *, stays: bool = False) -> None:
        """Deal with the rows that are an owner's; ``stays`` tells whether others have them, or go on without."""

    @abstractmethod
    def audits(self, task_id: str, *, shared: bool) -> None:
        """Deal with the audit entries of a task."""

    @abstractmethod
    def executed(self, task_id: str, agent_id: str) -> None:
        """Deal with a task that others gave to an agent."""

    @abstractmethod
    def detach(self, agent_id: str) -> None:
        """Deal with an agent that stays when its conversation goes."""

    @abstractmethod
    def naming(self, naming: Naming, names: Sequence[str]) -> None:
        """Deal with the rows in which a column names somebody."""

    @abstractmethod
    def naming_audits(self, after: int, upto: int, texts: Sequence[str]) -> None:
        """Deal with the audit entries of these numbers that name somebody."""

    @abstractmethod
    def end_user(self, key: str) -> bool:
        """Deal with the person's own row; false when there is something of theirs again."""

    @abstractmethod
    def end_agent(self, key: str, *, subject: bool) -> bool:
        """Deal with the agent's own row; false when there is something of its again."""

    @abstractmethod
    def end_session(self, key: str, *, but: str | None) -> bool:
        """Deal with the conversation's own row; false when there is something of it again."""

    @abstractmethod
    def end_task(self, key: str, *, shared: bool) -> bool:
        """Deal with the task's own row; false when there is something of it again."""


def names_of(session: Session, user: str) -> list[str]:
    """Return what columns may name a person by: the identifier, and the email, which is theirs alone."""
    found = session.first(_EMAIL, {"key": user})
    return [user] if found is None or not found[0] else [user, found[0]]


def conversation_of(session: Session, agent: str) -> str | None:
    """Return the agent's conversation, if no other agent holds it."""
    found = session.first(_CONVERSATION, {"key": agent})
    return None if found is None else found[0]


def standing_of(session: Session, task: str) -> Standing | None:
    """Return what decides about a task; None for one that is gone."""
    found = session.first(_STANDING, {"key": task})
    return None if found is None else Standing(bool(found[0]), found[1])


def _next_audits(session: Session, after: int) -> int | None:
    """Return up to which number audit entries are looked at next; None when those behind this one are gone."""
    found: int | None = session.all(_NEXT_AUDITS, {"after": after, "size": LOOKED_AT})[0][0]
    return found


class _IsShared:
    """Whether an agent has worked in a conversation that is not this person's, be it only on a task of it."""

    def __init__(self, agent_id: str, user: str) -> None:
        self._values = {"key": agent_id, "user": user}

    def __call__(self, session: Session) -> bool:
        return any(session.first(statement, self._values) is not None for statement in _ELSEWHERE)


_AGENTS, _TASKS, _SESSIONS = Agent.table(), Task.table(), Conversation.table()
_DEPENDENCIES, _AUDITS = TaskDependency.table(), TaskAudit.table()
_KEY = bindparam("key", type_=_AGENTS.c.agent_id.type)

_SESSIONS_OF_USER = Owned("sessions", "user_id")
_AGENTS_OF_SESSION = Owned("agents", "session_id")
_TASKS_OF_SESSION = Owned("tasks", "session_id")
_TASKS_OF_AGENT = Owned("tasks", "agent_id")

_EMAIL: Statement[Any] = Statement(select(User.table().c.email).where(User.table().c.id == _KEY))
_OTHER = _AGENTS.to_metadata(MetaData(), name="agents").alias("others")
_CONVERSATION: Statement[Any] = Statement(
    select(_AGENTS.c.session_id).where(
        _AGENTS.c.agent_id == _KEY,
        ~exists(select(literal(1)).where(_OTHER.c.session_id == _AGENTS.c.session_id, _OTHER.c.agent_id != _KEY)),
    )
)
_NEEDED = exists(select(literal(1)).where(_DEPENDENCIES.c.depends_on_task_id == _TASKS.c.task_id))
_STANDING: Statement[Any] = Statement(
    select(or_(_TASKS.c.project_id.is_not(None), _NEEDED), _TASKS.c.status).where(_TASKS.c.task_id == _KEY)
)
_LAST_AUDIT: Statement[Any] = Statement(select(func.max(_AUDITS.c.audit_id)))
_NEXT = (
    select(_AUDITS.c.audit_id)
    .where(_AUDITS.c.audit_id > bindparam("after", type_=_AUDITS.c.audit_id.type))
    .order_by(_AUDITS.c.audit_id)
    .limit(bindparam("size"))
    .subquery("next")
)
_NEXT_AUDITS: Statement[Any] = Statement(select(func.max(_NEXT.c.audit_id)))


def _elsewhere(table: Table) -> Statement[Any]:
    user = bindparam("user", type_=_SESSIONS.c.user_id.type)
    others = or_(_SESSIONS.c.user_id.is_(None), _SESSIONS.c.user_id != user)
    joined = table.join(_SESSIONS, _SESSIONS.c.id == table.c.session_id)
    return Statement(select(literal(1)).select_from(joined).where(table.c.agent_id == _KEY, others).limit(literal(1)))


_ELSEWHERE = tuple(_elsewhere(model.table()) for model in (Message, ToolCallRecord, Task, Context, Snapshot, Event))
