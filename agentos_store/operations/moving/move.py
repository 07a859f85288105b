"""A move: all rows of a source into a database that is empty before, and can be opened when all of it is there.

It goes through these stages, in which a kill at any point costs nothing but the batch that was being written: the rows
are written, then linked where they refer to each other in circles; what the source knows beside its rows is set; what
is searched is indexed; the audit trails are verified; and while nobody else can write there, what was written is read
back and compared, and the mark goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentos_store.conversations import message_index
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.errors import ConflictError
from agentos_store.knowledge import replacing as knowledge
from agentos_store.memory import items as memory
from agentos_store.migrate.target import Target
from agentos_store.operation import Access
from agentos_store.operations.moving import marking
from agentos_store.operations.moving.facts import write_facts
from agentos_store.operations.moving.places import connect
from agentos_store.operations.moving.rows import Batch, TableHash, root_hash
from agentos_store.operations.moving.sources import Source, snapshot
from agentos_store.operations.moving.tables import MovedTable, moved_tables
from agentos_store.operations.moving.writing import Writer
from agentos_store.search.index import add
from agentos_store.search.parts import indexed
from agentos_store.search.sources import Source as Documents
from agentos_store.tasks.verification import verify_chains

Progress = Callable[[str, int, int], None]
"""Told after each step: the stage, how much of it is done, and how much there is as far as it is known."""

INDEXED = 200
"""Documents that are indexed in one transaction."""

INDEXED_MESSAGES = 1_000
"""They are short, and nobody waits for them: fewer and larger pieces of an index are less work."""


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What a move has brought."""

    source: str
    target: str
    hashes: Mapping[str, TableHash]
    """By table how many rows, and the hash of what they hold: the same in source and target."""
    resumed: bool
    """Whether it went on where an earlier one had stopped."""
    broken_trails: Sequence[str]
    """Tasks whose audit trail does not verify; it is as it was in the source."""
    seconds: float

    @property
    def rows(self) -> int:
        """How many rows there are in all tables."""
        return sum(each.rows for each in self.hashes.values())

    @property
    def root_hash(self) -> str:
        """One hash over all tables: equal for two databases that hold the same."""
        return root_hash(self.hashes)


def move(
    source: Source, target: Target, *, restart: bool = False, replace: bool = False, progress: Progress | None = None
) -> MoveReport:
    """Bring the rows of a source into a database, and return what it holds then.

    The database is made if it is not there, and must be empty, or hold an unfinished move of the same rows: that goes
    on where it stopped. ``restart`` removes first what an unfinished move has left, ``replace`` whatever is there.
    Until all of it is there and compared, the database cannot be opened.

    Raises ConflictError when it is not empty, when another move is at work there, when what is there already is not
    what the source holds now, and when what is read back is not what was written.
    """
    began = time.monotonic()
    with marking.alone(target):
        resumed = marking.begin(target, restart=restart, replace=replace)
        with connect(target) as backend:
            work = _Move(source, backend, progress)
            hashes = work.write()
            work.link()
            work.set_facts()
            work.index()
            broken = work.verify_audits()
            with marking.ending(target):
                work.compare(hashes)
    return MoveReport(source.name, target.describe(), hashes, resumed, broken, time.monotonic() - began)


class _Move:
    def __init__(self, source: Source, backend: Backend, progress: Progress | None) -> None:
        self._source = source
        self._backend = backend
        self._progress = progress
        self._total = sum(source.counts.values())

    def write(self) -> dict[str, TableHash]:
        """Write what is missing; what is there has to be what the source begins with."""
        writer = Writer(self._backend)
        reached = writer.progress()
        done = 0
        hashes = {}
        for table in moved_tables():
            before = reached[table.name]
            at = TableHash()
            for batch in self._source.batches(table):
                there, missing = _split(batch, before.rows - at.rows)
                at = at.plus(there.lines)
                if at.rows == before.rows and missing.rows:
                    self._compare_begun(table, at, before)
                    at = writer.write(table, missing, at)
                    # The next batches are behind what is there.
                    before = at
                done += len(batch.rows)
                self._tell("writing", done)
            self._compare_begun(table, at, before)
            hashes[table.name] = at
        return hashes

    def _compare_begun(self, table: MovedTable, found: TableHash, before: TableHash) -> None:
        if found != before:
            why = (
                f"holds an unfinished copy, and its rows of {table.name} are not those that {self._source.name} begins"
                " with now: that has changed meanwhile, or is another one; start again with restart"
            )
            raise ConflictError("database", self._backend.describe(), why)

    def link(self) -> None:
        """Fill in the references that had to wait."""
        writer = Writer(self._backend)
        for table in moved_tables():
            if table.late:
                for batch in self._source.batches(table):
                    writer.link(table, batch.rows)

    def set_facts(self) -> None:
        """Let the numbers and the order of events go on."""
        facts, schema = self._source.facts, self._backend.schema
        self._backend.run(Access.WRITE, "move", lambda session: write_facts(session, schema, facts), repeatable=True)

    def index(self) -> None:
        """Index what is searched; of the messages the conversations tell which are missing."""
        run = self._backend.run
        for source, table in ((memory.SOURCE, "memory_items"), (knowledge.SOURCE, "kb_chunks")):
            after: str | None = ""
            count = 0
            while after is not None:
                some, after = run(Access.WRITE, "move", _indexing(source, after), repeatable=True)
                count += some
                self._tell(f"indexing {source.kind}", count, self._source.counts.get(table, 0))
        waiting = run(Access.READ, "move", lambda session: message_index.count_waiting(session, None), repeatable=True)
        after, count = "", 0
        while after is not None:
            after, some = run(Access.WRITE, "move", _indexing_messages(after), repeatable=True)
            count += some
            self._tell("indexing message", count, waiting)

    def compare(self, hashes: Mapping[str, TableHash]) -> None:
        """Read back what was written."""
        done = 0
        differing = []
        with snapshot(self._backend) as there:
            for table in moved_tables():
                found = TableHash()
                for batch in there.batches(table):
                    found = found.plus(batch.lines)
                    done += len(batch.rows)
                    self._tell("comparing", done)
                if found != hashes[table.name]:
                    differing.append(f"{table.name} ({found.rows:,} rows, {hashes[table.name].rows:,} in the source)")
        if differing:
            why = (
                f"what is read back is not what was written: {', '.join(differing)}; unless somebody else wrote there,"
                " the disk is at fault; start again with restart"
            )
            raise ConflictError("database", self._backend.describe(), why)

    def verify_audits(self) -> Sequence[str]:
        """Return the tasks whose trail is broken."""
        found = self._backend.run(Access.SNAPSHOT, "move", lambda s: verify_chains(s, None), repeatable=True)
        self._tell("verifying", found.entries, found.entries)
        return [fault.task_id for fault in found.faults]

    def _tell(self, stage: str, done: int, total: int | None = None) -> None:
        if self._progress is not None:
            self._progress(stage, done, self._total if total is None else total)


def _split(batch: Batch, at: int) -> tuple[Batch, Batch]:
    if at <= 0:
        return Batch((), ()), batch
    return Batch(batch.rows[:at], batch.lines[:at]), Batch(batch.rows[at:], batch.lines[at:])


def _indexing(source: Documents[Any], after: str) -> Callable[[Session], tuple[int, str | None]]:
    def body(session: Session) -> tuple[int, str | None]:
        found = source.batch(session, after, INDEXED)
        add(session, source.kind, [indexed(key, texts) for key, texts in found])
        return len(found), found[-1][0] if len(found) == INDEXED else None

    return body


def _indexing_messages(after: str) -> Callable[[Session], tuple[str | None, int]]:
    return lambda session: message_index.index_some(session, after, None, wait=False, most=INDEXED_MESSAGES)
