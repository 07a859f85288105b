"""Copies of SQLite files: made while everybody writes, checked, restored, verified."""

from __future__ import annotations

from agentos_store.operations.backups.copying import BackupReport, backup_sqlite
from agentos_store.operations.backups.restoring import RestoreReport, restore_sqlite
from agentos_store.operations.backups.verifying import VerifyReport, verify_sqlite
from agentos_store.operations.backups.workshop import Progress

__all__ = [
    "BackupReport",
    "Progress",
    "RestoreReport",
    "VerifyReport",
    "backup_sqlite",
    "restore_sqlite",
    "verify_sqlite",
]
