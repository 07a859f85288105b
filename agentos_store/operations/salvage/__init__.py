"""Salvage: what can still be read of a damaged SQLite file goes into a new one."""

from __future__ import annotations

from agentos_store.operations.salvage.report import SalvagedTable, SalvageReport
from agentos_store.operations.salvage.run import salvage_sqlite

__all__ = ["SalvageReport", "SalvagedTable", "salvage_sqlite"]
