"""Durations of the tests, and waiting for a lease to lapse."""

from __future__ import annotations

import datetime as dt

from agentos_store import Store
from tests.engine.gather import wait_for

LONG = dt.timedelta(minutes=5)
SHORT = dt.timedelta(milliseconds=50)
SOON = dt.timedelta(seconds=20)
"""Longer than any test waits that goes well."""


def wait_until_lapsed(store: Store, name: str) -> None:
    wait_for(lambda: not store.leases.exists(name))
