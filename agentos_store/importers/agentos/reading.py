"""A registry as its iterators see it."""

from __future__ import annotations

from agentos_store.importers.agentos.references import References
from agentos_store.importers.agentos.shapes import KEYS
from agentos_store.importers.database import Database
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found


class Reading(Database):
    """An open registry, whose rows are known by their keys."""

    _references: References

    def _take(self, found: Found) -> Row:
        return Row(found, KEYS.get(found.table))
