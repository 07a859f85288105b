"""The walk that only counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import bindparam, literal, select

from agentos_store.agents.models import Agent, AgentDocument
from agentos_store.conversations.models import User
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operations.forgetting.classification import Owner
from agentos_store.operations.forgetting.report import ForgetReport
from agentos_store.operations.forgetting.statements import ROWS, Naming, Rows, by
from agentos_store.operations.forgetting.walk import Standing, Walk
from agentos_store.tasks.erasure import count_payloads, tasks_holding
from agentos_store.tasks.models import TaskAudit
from agentos_store.tasks.states import ENDED


class Counting(Walk):
    """Counts each row once, by whatever way it is reached first; so it keeps the keys of what it has counted."""

    def __init__(self, backend: Backend, report: ForgetReport) -> None:
        super().__init__(backend)
        self.report = report
        self._seen: set[tuple[Any, ...]] = set()

    def _new(self, *what: Any) -> bool:
        if what in self._seen:
            return False
        self._seen.add(what)
        return True

    def rows(self, owner: Owner, key: str, *, stays: bool = False) -> None:
        """Count them."""
        for rows in ROWS[owner]:
            if rows.goes or stays:
                self._count(rows, key)

    def _count(self, rows: Rows, key: str) -> None:
        keys = self.ask(lambda session: rows.keys(session, key))
        name = rows.table.name
        new = sum(self._new(name, *each) for each in keys)
        if new and rows.goes:
            self.report.of(name).removed += new
        elif new:
            self.report.of(name).emptied += new

    def cancel(self, key: str, standing: Standing) -> None:
        """Count the entry that would tell of it, and be erased with the others."""
        if standing.status not in ENDED and self._new("cancelled", key):
            self.report.of("task_audits").emptied += 1

    def audits(self, task_id: str, *, shared: bool) -> None:
        """Count the payloads, or the entries."""
        if not self._new("chain", task_id):
            return
        if shared:
            self.report.of("task_audits").emptied += self.ask(lambda session: count_payloads(session, task_id))
        else:
            self.report.of("task_audits").removed += len(
                self.ask(lambda session: session.all(_ENTRIES, {"key": task_id}))
            )

    def executed(self, task_id: str, agent_id: str) -> None:
        """Count the task, and the entries that name the agent."""
        if ("tasks", task_id) in self._seen:
            return
        self.report.of("tasks").emptied += 1
        if self._new("chain", task_id):
            texts = [text for text, _ in by([agent_id])]
            self.report.of("task_audits").emptied += self.ask(lambda session: count_payloads(session, task_id, texts))

    def detach(self, agent_id: str) -> None:
        """Count its documents and itself."""
        (documents,) = (rows for rows in ROWS[Owner.AGENT] if rows.table is AgentDocument.table())
        self._count(documents, agent_id)
        if self._new("agents", agent_id):
            self.report.of("agents").emptied += 1

    def naming(self, naming: Naming, names: Sequence[str]) -> None:
        """Count the rows that would be left."""
        for found in self.named(naming, names):
            name = naming.table.name
            self.report.of(name).named += sum((name, key) not in self._seen for key in found)

    def naming_audits(self, after: int, upto: int, texts: Sequence[str]) -> None:
        """Count the entries of chains that were not counted yet."""
        for task_id in self.ask(lambda session: tasks_holding(session, after, upto, texts)):
            if self._new("chain", task_id):
                found: int = self.ask(partial(count_payloads, task_id=task_id, holding=texts))
                self.report.of("task_audits").emptied += found

    def end_user(self, key: str) -> bool:
        """Count the person."""
        return self._owner("users", key, _USER)

    def end_agent(self, key: str, *, subject: bool) -> bool:
        """Count the agent."""
        del subject
        return self._owner("agents", key, _AGENT)

    def end_session(self, key: str, *, but: str | None) -> bool:
        """Count the conversation."""
        del but
        if self._new("sessions", key):
            self.report.of("sessions").removed += 1
        return True

    def end_task(self, key: str, *, shared: bool) -> bool:
        """Count the task."""
        if self._new("tasks", key):
            erased = self.report.of("tasks")
            if shared:
                erased.emptied += 1
            else:
                erased.removed += 1
        return True

    def _owner(self, table: str, key: str, there: Statement[Any]) -> bool:
        def body(session: Session) -> bool:
            return session.first(there, {"key": key}) is not None

        if self._new(table, key) and self.ask(body):
            self.report.of(table).removed += 1
        return True


def _there(column: Any) -> Statement[Any]:
    return Statement(select(literal(1)).where(column == bindparam("key", type_=column.type)))


_USER, _AGENT = _there(User.table().c.id), _there(Agent.table().c.agent_id)
_ENTRIES: Statement[Any] = Statement(
    select(TaskAudit.table().c.audit_id).where(
        TaskAudit.table().c.task_id == bindparam("key", type_=TaskAudit.table().c.task_id.type)
    )
)
