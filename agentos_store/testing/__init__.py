"""What a test suite needs around a store: a PostgreSQL server, and databases on it that cost little."""

from __future__ import annotations

from agentos_store.testing.databases import Databases, reset_schema
from agentos_store.testing.postgres import PostgresServer

__all__ = ["Databases", "PostgresServer", "reset_schema"]
