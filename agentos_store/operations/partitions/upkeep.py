"""Upkeep of divided events: partitions that are needed soon are made, and old ones go."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from agentos_store.engine.backend import Backend
from agentos_store.errors import SchemaMismatchError, UnavailableError
from agentos_store.operations.partitions.desk import Desk, Partition, Standing
from agentos_store.operations.partitions.dividing import AHEAD, ROWS

log = logging.getLogger("agentos_store.partitions")


def keep_ahead(backend: Backend) -> None:
    """Make partitions ahead, as large as the last one, where events are divided and this role may do it."""
    if not backend.capabilities.partitions:
        return
    desk = Desk(backend, is_patient=False)
    found = desk.look()
    rows = next((p.end - p.start for p in reversed(found.partitions) if p.end and p.start is not None), ROWS)
    if found.is_divided and found.may_change and found.missing(rows, AHEAD):
        try:
            desk.locked("ACCESS EXCLUSIVE", lambda cursor, now: desk.make_missing(cursor, now, rows, AHEAD))
        except UnavailableError as error:
            # The rest catches what comes until then.
            log.warning("no partitions of the events were made ahead: %s", error)


def drop_old(backend: Backend, age: float | None) -> Iterator[tuple[int, float]]:
    """Drop the partitions whose newest event is older than so many seconds; yield rows and seconds for each.

    One to which a position still belongs that was not drawn yet stays, and so does what cannot be dropped now.
    """
    if not backend.capabilities.partitions:
        return
    desk = Desk(backend, is_patient=False)
    found = desk.look()
    if not found.is_divided or not found.may_change:
        return
    for part in found.partitions:
        if part.end is None or part.end > found.last + 1:
            continue
        rows = _rows_of_old(backend, desk, part, age)
        if rows is None:
            continue
        began = time.perf_counter()
        try:
            gone = desk.locked("ACCESS EXCLUSIVE", _Drop(desk, part, age))
        except UnavailableError as error:
            log.warning("partition %s could not be dropped, so its rows go one by one: %s", part.name, error)
            return
        if gone:
            yield rows, time.perf_counter() - began


def _rows_of_old(backend: Backend, desk: Desk, part: Partition, age: float | None) -> int | None:
    try:
        with backend.raw_connection() as cursor:
            if _is_old(desk, cursor, part, age):
                return int(desk.one(cursor, f"SELECT count(*) FROM {desk.name(part.name)}")[0])
    except SchemaMismatchError:
        # Somebody else who prunes has dropped it just now.
        if part in desk.look().partitions:
            raise
    return None


class _Drop:
    def __init__(self, desk: Desk, part: Partition, age: float | None) -> None:
        self._desk, self._part, self._age = desk, part, age

    def __call__(self, cursor: Any, found: Standing) -> bool:
        # Whoever wrote there has ended by now.
        if self._part not in found.partitions or not _is_old(self._desk, cursor, self._part, self._age):
            return False
        self._desk.run(cursor, f"DROP TABLE {self._desk.name(self._part.name)}")
        return True


def _is_old(desk: Desk, cursor: Any, part: Partition, age: float | None) -> bool:
    if age is None:
        return True
    text = f"SELECT max(created_at) >= clock_timestamp() - interval '{age:f} seconds' FROM {desk.name(part.name)}"
    return not desk.one(cursor, text)[0]
