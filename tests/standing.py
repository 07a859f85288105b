"""Where the tests' stores stand before their server: as which role, and through what.

AGENTOS_STORE_TEST_ROLE=application lets them work as the role that may only work. AGENTOS_STORE_TEST_THROUGH=pgbouncer
leads them through a PgBouncer in transaction mode. What a test does as another program, it does as it ever did.
"""

from __future__ import annotations

import os

import pytest
from sqlalchemy.engine import make_url

from agentos_store import Settings, ensure_migrations
from agentos_store.migrate.grants import Roles, grants
from agentos_store.migrate.target import Target
from agentos_store.testing.postgres import connect

AS_APPLICATION = os.environ.get("AGENTOS_STORE_TEST_ROLE") == "application"
THROUGH_BOUNCER = os.environ.get("AGENTOS_STORE_TEST_THROUGH") == "pgbouncer"

owners_work = pytest.mark.skipif(AS_APPLICATION, reason="this is the work of the schema's owner")
own_session = pytest.mark.skipif(THROUGH_BOUNCER, reason="this is about a session of the store's own")

ROLES = Roles("agentos_test_owner", "agentos_test_app", "agentos_test_reader")


def as_role(url: str, role: str) -> str:
    """Return the URL for another role of the same database."""
    return make_url(url).set(username=role).render_as_string(hide_password=False)


def grant(url: str, schema: str | None = None, *, append_only: str = "trigger") -> None:
    """Run what the package prints, as an administrator would."""
    settings = Settings.load(append_only=append_only)
    script = grants(Target.of(url, schema=schema, settings=settings), ROLES)
    with connect(url) as admin:
        # Roles belong to the whole server, and two cannot change one at once.
        admin.execute("SELECT pg_advisory_lock(7013)")
        admin.execute(script.encode())


def migrate(url: str, schema: str | None = None) -> None:
    """Migrate, by the owner where the tests work as the application."""
    if not AS_APPLICATION:
        ensure_migrations(url, schema=schema)
        return
    grant(url, schema)
    ensure_migrations(as_role(url, ROLES.owner), schema=schema)
    grant(url, schema)


def tested(url: str, bouncer: str | None) -> str:
    """Return the URL by which the tests' stores go to a database."""
    found = make_url(url)
    if AS_APPLICATION:
        found = found.set(username=ROLES.application)
    if bouncer:
        there = make_url(bouncer)
        kept = {name: value for name, value in found.query.items() if name not in {"host", "port"}}
        found = found.set(host=there.host, port=there.port, query=kept)
    return found.render_as_string(hide_password=False)


def administrative(url: str, server: str) -> str:
    """Return the URL of the same database as an administrator has it, past everything that stands between."""
    if not (AS_APPLICATION or THROUGH_BOUNCER) or url.startswith("sqlite"):
        return url
    return make_url(server).set(database=make_url(url).database).render_as_string(hide_password=False)
