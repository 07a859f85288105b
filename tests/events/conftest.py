"""A way past the library, to the database itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from agentos_store.engine.session import Session
from agentos_store.events import order

Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def own_transactions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no transaction of another database keep events back: other tests run on the same server.

    Whoever looks how far the order can be read looks again as long as it is such a transaction that is in the way.
    """
    look = order.look

    def look_past_strangers(session: Session, origin: str) -> order.Look | None:
        found = look(session, origin)
        deadline = time.monotonic() + 20
        while found is not None and found.behind and time.monotonic() < deadline:
            holders = cast("Any", session._connection).cursor.execute(
                "SELECT 1 FROM pg_stat_activity WHERE backend_xid::text = %s AND datname = current_database()",
                [str(found.horizon % 2**32)],
                prepare=False,
            )
            if holders.fetchone() is not None:
                break
            found = look(session, origin)
        return found

    monkeypatch.setattr(order, "look", look_past_strangers)
