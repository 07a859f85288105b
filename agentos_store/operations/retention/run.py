"""A run of the retention: policies are carried out one after another, in steps, and the run is noted."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, func, select, update

from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.errors import InvalidValueError
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.operation import Access
from agentos_store.operations import partitions
from agentos_store.operations.retention.candidates import Limits, Place
from agentos_store.operations.retention.policies import Policy, Pruned, PruneReport, check, name_of
from agentos_store.operations.retention.rules import IN_ANY_STATE, RULES, Rule, Step, takes_all

FIRST_STEP = 50
LARGEST_STEP = 5_000
AIM = 0.04
"""Seconds that a step should work: with the commit, a writer on SQLite waits far less than 200 ms for it."""

Progress = Callable[[str, int], None]
"""Told after each step, and at the end: the policy's name, and how many rows went so far."""

STATES = {table: tuple(rules) for table, rules in RULES.items()}
"""By table the states of rows that retention may remove."""


def prune(
    backend: Backend,
    policies: Sequence[Policy],
    *,
    dry_run: bool = False,
    confirm: bool = False,
    progress: Progress | None = None,
) -> PruneReport:
    """Carry the policies out in their order, and return what went."""
    chosen = [(policy, _rules(policy)) for policy in policies]
    if not confirm and not dry_run:
        for policy, rules in chosen:
            if backend.run(Access.SNAPSHOT, "prune", _Leaves(policy, rules), repeatable=True) == "nothing":
                raise InvalidValueError(
                    "policies", f"{name_of(policy)}: no row would be left of the table; confirm that this is meant"
                )
    if dry_run:
        report = PruneReport(None, dry_run=True)
        for policy, rules in chosen:
            rows = sum(backend.run(Access.SNAPSHOT, "prune", _Count(policy, rule), repeatable=True) for rule in rules)
            report.tables.setdefault(name_of(policy), Pruned()).rows += rows
        return report
    run_id = backend.run(Access.WRITE, "prune", _begin, repeatable=False)
    report = PruneReport(run_id, dry_run=False)
    error: str | None = "it was interrupted"
    try:
        partitions.keep_ahead(backend)
        for policy, rules in chosen:
            pruned = report.tables.setdefault(name_of(policy), Pruned())
            if takes_all(policy):
                _drop_partitions(backend, policy, pruned, progress)
            for rule in rules:
                _carry_out(backend, policy, rule, pruned, progress)
        error = None
    except Exception as fault:
        # Its text may quote a row.
        error = type(fault).__name__
        raise
    finally:
        counts = {name: pruned.rows for name, pruned in report.tables.items()}
        backend.run(Access.WRITE, "prune", _End(run_id, counts, error), repeatable=True)
    return report


def _rules(policy: Policy) -> list[Rule]:
    rules = RULES.get(policy.table)
    if rules is None:
        raise InvalidValueError("table", f"must be one of {', '.join(RULES)}")
    check(policy, tuple(rules))
    if not policy.states and policy.table in IN_ANY_STATE:
        return [IN_ANY_STATE[policy.table]]
    return [rules[state] for state in dict.fromkeys(policy.states or rules)]


def _drop_partitions(backend: Backend, policy: Policy, pruned: Pruned, progress: Progress | None) -> None:
    age = None if policy.older_than is None else policy.older_than.total_seconds()
    for rows, worked in partitions.drop_old(backend, age):
        pruned.rows += rows
        pruned.steps += 1
        pruned.longest = max(pruned.longest, dt.timedelta(seconds=worked))
        if progress is not None:
            progress(name_of(policy), pruned.rows)


def _carry_out(backend: Backend, policy: Policy, rule: Rule, pruned: Pruned, progress: Progress | None) -> None:
    limits: Limits | None = backend.run(Access.READ, "prune", lambda s: _limits(s, policy, rule), repeatable=True)
    if limits is None:
        return
    after: Place | None = None
    number = FIRST_STEP
    queued = not backend.capabilities.row_locks
    while True:
        work = _Work(rule, limits, after, number)
        if queued:
            # All writers stand in one queue. The rows are looked for outside, for many that stay may lie between them.
            found = backend.run(Access.READ, "prune", work.look, repeatable=True)
            if not found:
                if progress is not None:
                    progress(name_of(policy), pruned.rows)
                return
            work = _Work(rule, replace(limits, first=tuple(found[0][:2]), last=tuple(found[-1][:2])), None, number)
        step: Step = backend.run(Access.WRITE, f"prune {policy.table}", work, repeatable=True)
        pruned.rows += step.rows
        pruned.steps += 1
        pruned.longest = max(pruned.longest, dt.timedelta(seconds=work.seconds))
        if progress is not None:
            progress(name_of(policy), pruned.rows)
        if step.done and not queued:
            return
        after = step.after or after
        if queued:
            # Who waits in the queue while a step works shall not meet the next one at once.
            time.sleep(min(work.seconds, AIM))
        # Half or twice as many at most, so that one slow step does not decide about the next ones.
        number = round(min(max(number * AIM / max(work.seconds, 1e-6), number / 2, 1), number * 2, LARGEST_STEP))


class _Work:
    """One step, with the time that it took."""

    def __init__(self, rule: Rule, limits: Limits, after: Place | None, number: int) -> None:
        self._arguments = (limits, after, number)
        self._rule = rule
        self.seconds = 0.0

    def look(self, session: Session) -> list[Any]:
        """Return the next rows that may go."""
        return self._rule.candidates.next(session, *self._arguments)

    def __call__(self, session: Session) -> Step:
        began = time.perf_counter()
        step = self._rule.take(session, *self._arguments)
        self.seconds = time.perf_counter() - began
        return step


def _limits(session: Session, policy: Policy, rule: Rule) -> Limits | None:
    """Return what may go of the rule's rows; None when nothing may."""
    age = None if policy.older_than is None else policy.older_than.total_seconds()
    last = None
    if policy.keep is not None:
        last = rule.candidates.last_but(session, policy.keep)
        if last is None:
            return None
    return Limits(age, last)


class _Count:
    def __init__(self, policy: Policy, rule: Rule) -> None:
        self._policy, self._rule = policy, rule

    def __call__(self, session: Session) -> int:
        limits = _limits(session, self._policy, self._rule)
        return 0 if limits is None else self._rule.candidates.count(session, limits)


class _Leaves:
    """Tells whether a policy leaves anything of its table: ``something``, ``nothing``, or ``empty`` if it is so now."""

    def __init__(self, policy: Policy, rules: Sequence[Rule]) -> None:
        self._policy, self._rules = policy, rules

    def __call__(self, session: Session) -> str:
        table = self._rules[0].candidates.table
        total: int = session.all(Statement(select(func.count()).select_from(table), lasting=False))[0][0]
        going = sum(_Count(self._policy, rule)(session) for rule in self._rules)
        return "something" if going < total else "nothing" if total else "empty"


def _begin(session: Session) -> str:
    run_id = session.new_ulid()
    row = {"id": run_id, "kind": "retention", "started_at": session.now(), "finished_at": None}
    session.execute(_INSERT, {**row, "counts": {}, "progress": {}, "error": None})
    return run_id


class _End:
    def __init__(self, run_id: str, counts: dict[str, int], error: str | None) -> None:
        self._values = {"id": run_id, "counts": counts, "error": error}

    def __call__(self, session: Session) -> None:
        session.execute(_FINISH, {**self._values, "finished_at": session.now()})


_RUNS = MaintenanceRun.table()
_INSERT: Statement[Any] = Statement(insert_into(MaintenanceRun))
_FINISH: Statement[Any] = Statement(
    update(_RUNS)
    .where(_RUNS.c.id == bindparam("id", type_=_RUNS.c.id.type))
    .values({name: bindparam(name, type_=_RUNS.c[name].type) for name in ("finished_at", "counts", "error")})
)
