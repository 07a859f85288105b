"""Migrations: at start-up, from the command line, and through Alembic itself; all three do the same work."""

from __future__ import annotations

from agentos_store.migrate.ensure import ensure_migrations

__all__ = ["ensure_migrations"]
