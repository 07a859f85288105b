"""What an import did, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LISTED = 1000
"""Repairs and rows set aside that are listed one by one; the counts are always complete."""

Progress = Callable[[str, int, int], None]
"""Told while an import runs: what is read, how many rows are done, how many there are."""


@dataclass(slots=True)
class Counts:
    """What became of the rows of one kind: those that were read came in, were there, were set aside or merged."""

    read: int = 0
    imported: int = 0
    repeated: int = 0
    """In the store already, and left as they are there."""
    repaired: int = 0
    """Of those that were read, those that arrive otherwise than they were found."""
    set_aside: int = 0
    merged: int = 0
    """Further rows of something that stood in several, of which one was made."""


@dataclass(frozen=True, slots=True)
class Note:
    """One row that was repaired or set aside, and why."""

    table: str
    key: str
    why: str


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    source: str
    shape: str
    version: str
    counts: dict[str, Counts] = field(default_factory=dict)
    """By kind of row."""
    not_yet: Mapping[str, int] = field(default_factory=dict)
    """Rows of tables that have a place in the store, but no importer so far."""
    no_place: Mapping[str, int] = field(default_factory=dict)
    """Rows of tables that the store has no place for."""
    exported: Mapping[str, int] = field(default_factory=dict)
    """Rows of both that were written to a file, by table."""
    repairs: list[Note] = field(default_factory=list)
    set_aside: list[Note] = field(default_factory=list)
    unlisted: int = 0
    """Repairs and rows set aside beyond those that are listed."""

    def of(self, kind: str) -> Counts:
        """Return the counts of a kind, to be added to."""
        return self.counts.setdefault(kind, Counts())

    def repair(self, note: Note) -> None:
        """List a repair."""
        self._list(self.repairs, note)

    def aside(self, note: Note) -> None:
        """List a row that was set aside."""
        self._list(self.set_aside, note)

    @property
    def imported(self) -> int:
        """How many rows came in, of all kinds."""
        return sum(counts.imported for counts in self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        tables = {name: dict(getattr(self, name)) for name in ("not_yet", "no_place", "exported")}
        return {**asdict(self), **tables}

    def _list(self, notes: list[Note], note: Note) -> None:
        if len(notes) < LISTED:
            notes.append(note)
        else:
            self.unlisted += 1
