"""One import under way: records go from a reader to a writer in batches, and every row is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from agentos_store.errors import InvalidValueError
from agentos_store.importers.problems import Problem, Repair
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.importers.writing import BATCH, Outcome


class Record(Protocol):
    """What a reader makes of a row. One that was made of several has ``merged``, the number of further ones, too."""

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What had to be changed."""


T = TypeVar("T", bound=Record)
Item = TypeVar("Item")


class Run:
    """Loads one kind after the other and keeps the report."""

    def __init__(self, report: ImportReport, total: Callable[[str], int], progress: Progress | None) -> None:
        self._report = report
        self._total = total
        self._progress = progress

    def load(self, kind: str, items: Iterator[T | Problem], write: Callable[[Sequence[T]], Outcome]) -> None:
        """Write the records in batches and count what became of every row."""
        counts = self._report.of(kind)
        total = self._total(kind)
        for batch in batches(items):
            records: list[T] = []
            for item in batch:
                counts.read += 1
                if isinstance(item, Problem):
                    counts.set_aside += 1
                    self._report.aside(Note(item.table, item.key, item.reason))
                else:
                    records.append(item)
            self._count(kind, records, write(records))
            if self._progress is not None:
                self._progress(kind, counts.read, max(total, counts.read))

    def _count(self, kind: str, records: Sequence[T], outcome: Outcome) -> None:
        counts = self._report.of(kind)
        counts.imported += outcome.imported
        counts.merged += outcome.merged
        counts.repeated += len(records) - outcome.imported - outcome.merged - len(outcome.refused)
        counts.set_aside += len(outcome.refused)
        for position, record in enumerate(records):
            merged: int = getattr(record, "merged", 0)
            counts.merged += merged
            counts.read += merged
            if position in outcome.refused:
                self._report.aside(outcome.refused[position])
                continue
            repairs = [Note(repair.table, repair.key, repair.what) for repair in record.repairs]
            repairs += outcome.changed.get(position, [])
            counts.repaired += bool(repairs)
            for note in repairs:
                self._report.repair(note)


def one_by_one(write: Callable[[Sequence[T]], Outcome], name: Callable[[T], tuple[str, str]]) -> Callable[..., Outcome]:
    """Return a writer that sets a record with a refused value aside, where the given one refuses the whole batch.

    ``name`` gives the record's table and key for the report.
    """

    def careful(records: Sequence[T]) -> Outcome:
        try:
            return write(records)
        except InvalidValueError:
            pass
        outcome = Outcome()
        for position, record in enumerate(records):
            try:
                single = write([record])
            except InvalidValueError as error:
                outcome.refused[position] = Note(*name(record), str(error))
                continue
            outcome.imported += single.imported
            outcome.merged += single.merged
            if single.changed:
                outcome.changed[position] = single.changed[0]
            if single.refused:
                outcome.refused[position] = single.refused[0]
        return outcome

    return careful


def batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Give the items in batches."""
    while batch := list(islice(items, BATCH)):
        yield batch


def counted(report: ImportReport) -> dict[str, Any]:
    """Return what came in, by kind, for the housekeeping."""
    return {kind: counts.imported for kind, counts in report.counts.items()}
