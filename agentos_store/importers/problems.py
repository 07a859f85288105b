"""What an import has to say about a row: it was repaired, or it was set aside, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of the source that does not arrive: a row, a run of unreadable rows, a column, a whole table."""

    table: str
    key: str
    """The row's own key as text; ``rowid 7``, ``rowid 7 to 12`` or ``rowid 7 on`` where it cannot be read; ``*`` for a
    whole table; ``column x`` for one of its columns."""
    reason: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Something of a row that arrives otherwise than it was found."""

    table: str
    key: str
    what: str


class SetAside(Exception):
    """The row has no place in the store; caught where the row becomes a Problem."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
