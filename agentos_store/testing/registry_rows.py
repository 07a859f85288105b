"""How the rows of a made registry are written, and what an import is to find of them is counted."""

from __future__ import annotations

import datetime as dt
import random
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agentos_store.testing.registry_tables import AGENTOS, BOTH, DOCUMENT

START: Final = dt.datetime(2026, 1, 10, 8, 0, tzinfo=dt.UTC)

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Outcome = Literal["imported", "repaired", "set_aside", "merged"]

DOMAINS: Final = (
    "projects",
    "repos",
    "users",
    "sessions",
    "messages",
    "tasks",
    "lineage",
    "audits",
    "dependencies",
    "scopes",
    "artifacts",
    "verdicts",
    "inbox",
    "memory",
    "sources",
    "chunks",
    "embeddings",
)
"""The domains that the importer reads, in its order."""


@dataclass
class Expected:
    """What an import of one domain is to find."""

    rows: int = 0
    imported: int = 0
    repaired: int = 0
    """Of the imported ones."""
    set_aside: int = 0
    merged: int = 0
    """Rows that went into another row's record."""


class Rows:
    """The tables of a new file, and what is to become of the rows that are put into them."""

    def __init__(self, path: Path, *, shape: str, seed: int) -> None:
        if path.exists():
            raise FileExistsError(path)
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.agentos = shape == "agentos"
        self.random = random.Random(seed)
        self.columns: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self.expected = {name: Expected() for name in DOMAINS}
        self.inbox_counts: Counter[str] = Counter()
        self.unused_assignments = 0
        self.flaw_list: list[str] = []
        self.task_ids: list[str] = []
        self.users: set[str] = set()
        self.clock = START

    def later(self, minutes: float = 1.0) -> dt.datetime:
        """Let time pass, and return what it is then."""
        self.clock += dt.timedelta(minutes=minutes, microseconds=self.random.randrange(1_000_000))
        return self.clock

    def ulid(self) -> str:
        """Return a key of this moment."""
        milliseconds = int(self.clock.timestamp() * 1000)
        head = "".join(_CROCKFORD[milliseconds >> shift & 31] for shift in range(45, -1, -5))
        return head + "".join(self.random.choice(_CROCKFORD) for _ in range(16))

    def hex(self, digits: int) -> str:
        """Return a hash of nothing in particular."""
        return f"{self.random.getrandbits(digits * 4):0{digits}x}"

    def insert(self, table: str, **values: object) -> int:
        """Insert a row; columns that this shape does not have are left out."""
        known = {column: value for column, value in values.items() if column in self.columns[table]}
        names, marks = ", ".join(f'"{column}"' for column in known), ", ".join("?" * len(known))
        done = self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(known.values()))
        self.counts[table] += 1
        return done.lastrowid or 0

    def expect(self, domain: str, outcome: Outcome = "imported") -> None:
        """Count what an import is to do with one more row."""
        numbers = self.expected[domain]
        numbers.rows += 1
        if outcome == "repaired":
            numbers.imported += 1
        setattr(numbers, outcome, getattr(numbers, outcome) + 1)

    def flaw(self, what: str, domain: str, outcome: Outcome = "repaired") -> None:
        """Note a flaw of one row, and what an import is to do with it."""
        self.flaw_list.append(what)
        self.expect(domain, outcome)

    def create_tables(self) -> None:
        """Create the tables of the shape, without rows."""
        # A line that is indented goes on with the table of the line before it.
        text = (BOTH + (AGENTOS if self.agentos else DOCUMENT)).replace(",\n  ", ", ")
        for line in text.split("\n"):
            if line:
                table, _, columns = line.partition(": ")
                self.columns[table] = [column.split()[0] for column in columns.split(", ")]
                listed = ", ".join('"{}" {}'.format(*column.split()) for column in columns.split(", "))
                self.connection.execute(f'CREATE TABLE "{table}" ({listed}, primary key ({self.columns[table][0]}))')
                self.counts[table] = 0


def spaced(moment: dt.datetime) -> str:
    """Write a time as SQLite does."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def naive(moment: dt.datetime) -> str:
    """Write a time as ISO 8601 without an offset."""
    return moment.replace(tzinfo=None).isoformat()
