"""Alembic's entry: everything it does is in the package, so that all ways to migrate do the same."""

from alembic import context

from agentos_store.migrate.environment import run

run(context)
