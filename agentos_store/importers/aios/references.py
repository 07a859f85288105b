"""The columns of AIOS's tables, and what is told by all rows together."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.keys import KeySets
from agentos_store.importers.problems import Problem
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile
from agentos_store.importers.times import EPOCH

ORIGIN_KEY: Final = "aios"

KEYS: Final[Mapping[str, str]] = {
    "agent_states": "agent_id",
    "contexts": "context_id",
    "events": "event_id",
    "task_history": "task_id",
}
"""The column of the key, by table."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    table: tuple(columns.split())
    for table, columns in {
        "agent_states": "agent_id role goal backstory state created_at updated_at last_task_id stats_json",
        "task_history": "task_id agent_id task_type priority status created_at started_at completed_at duration"
        " result_json error_message",
        "contexts": "context_id agent_id session_id context_data created_at expires_at",
        "events": "event_id event_type agent_id timestamp data_json severity",
    }.items()
}
"""The columns that are read, by table."""


def row_of(found: Found) -> Row:
    """Return a row on its way to a record."""
    return Row(found, KEYS[found.table], origin=ORIGIN_KEY)


class References:
    """Knows which keys were met, and the time for rows that tell of none."""

    def __init__(self, source: SourceFile, keys: KeySets) -> None:
        self._source = source
        self.keys = keys

    @functools.cached_property
    def around(self) -> dt.datetime:
        """The time for rows that tell of none: when the newest agent or task was made."""
        moments = [
            row_of(found).time("created_at")
            for table in ("agent_states", "task_history")
            for found in self._source.rows(table)
            if not isinstance(found, Problem)
        ]
        return max((moment for moment in moments if moment is not None), default=EPOCH)
