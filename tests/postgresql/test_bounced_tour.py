"""Through PgBouncer in transaction mode every domain works as it does without: no session is a client's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentos_store import Settings, Store, ensure_migrations
from tests.events.bouncer import bouncer
from tests.postgresql.tour import look, work


@pytest.fixture
def bounced(url: str) -> Iterator[str]:
    with bouncer(url) as through:
        yield through


def test_every_domain_works_through_pgbouncer(bounced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the oldest that is met, it knows of no prepared statements.
    monkeypatch.setenv("DATABASE_PREPARE_STATEMENTS", "false")
    assert ensure_migrations(bounced, schema="tenant") > 0
    for schema in ("public", "tenant"):
        with Store.open(bounced, schema=schema) as store:
            work(store)
            assert len(list(look(store))) > 80


def test_a_replica_behind_it_is_read_like_any_other(bounced: str) -> None:
    # One server is enough for the way there: it answers as one that has replayed everything.
    settings = Settings.load(prepare_statements=False, read_url=bounced)
    with Store.open(bounced, settings=settings) as store:
        for _ in range(20):
            task = store.tasks.create(title="t")
            assert store.tasks.exists(task.task_id)
