"""What is to go: policies, checked before anything is read, and the report of what went."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentos_store.errors import InvalidValueError
from agentos_store.types import check_duration, check_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may go of one table: rows that are older than an age, beyond a number, and in one of some states.

    A row goes when every limit that is given lets it go. ``messages`` are the rows that a conversation has given up
    and no snapshot needs; ``task_audits`` go from the beginning of their chains, which still verify; ``sessions`` and
    ``agents`` go with all that is theirs. What the states of a table are, ``STATES`` says.
    """

    table: str
    older_than: dt.timedelta | None = None
    """By the database's clock, since the row was ended: completed, processed, deleted; else since it was created."""
    keep: int | None = None
    """How many of the newest stay, whatever their age: of each state, and of all events where no state is named."""
    states: Sequence[str] = ()
    """Only rows in these states; without any, all those that the table lets go."""


@dataclass(slots=True)
class Pruned:
    """What became of one table."""

    rows: int = 0
    """Rows that went, or with a dry run would go; what goes with them is not counted."""
    steps: int = 0
    longest: dt.timedelta = dt.timedelta(0)
    """The longest time that a step worked in the database, which is what a writer on SQLite may have to wait."""


@dataclass(slots=True)
class PruneReport:
    """What a run of the retention did, or with a dry run would do."""

    run_id: str | None
    """Names the run in ``maintenance_runs``; None for a dry run, which leaves nothing behind."""
    dry_run: bool
    tables: dict[str, Pruned] = field(default_factory=dict)
    """By policy, in the order given: the table, with its states where the policy names some."""

    @property
    def rows(self) -> int:
        """How many rows went in all."""
        return sum(pruned.rows for pruned in self.tables.values())


def check(policy: Policy, states: Sequence[str]) -> None:
    """Raise InvalidValueError for a policy that makes no sense; ``states`` are those of its table."""
    if policy.older_than is not None:
        check_duration("older_than", policy.older_than, zero_too=True)
    if policy.keep is not None:
        check_whole("keep", policy.keep, 0)
    if isinstance(policy.states, str):
        raise InvalidValueError("states", "must be a list of states")
    for state in policy.states:
        if state not in states:
            choices = ", ".join(states) if states else "none: its rows have no states"
            raise InvalidValueError("states", f"{policy.table} has {choices}")
    if policy.table == "task_audits" and (policy.keep is not None or policy.older_than is None):
        raise InvalidValueError("older_than", "audits go by their age, and by nothing else")


def name_of(policy: Policy) -> str:
    """Return what the report calls a policy."""
    return policy.table if not policy.states else f"{policy.table} ({', '.join(policy.states)})"
