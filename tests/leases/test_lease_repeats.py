"""What a call on leases does that is run again because the answer to its commit was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import LeaseLostError, Store
from agentos_store.base import Base
from agentos_store.engine.session import Call, Session
from agentos_store.leases.models import Fence
from agentos_store.leases.repository import LeaseRepository
from agentos_store.operation import Blocking, Repository, writes
from tests.leases.moments import LONG

leases: Any = LeaseRepository[Blocking]
none: Any = None
HELD = Fence("held", 1)


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(
        self, session: Session, call: Callable[[Session], Any], between: Callable[[Session], Any] | None = None
    ) -> tuple[Any, Any]:
        """Run a body twice, the second time as when nobody knows what became of the first."""
        same = Call()
        first = call(Session(session._connection, same))
        if between is not None:
            between(Session(session._connection, Call()))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


def plain(result: Any) -> Any:
    return {**result.to_dict(), "expires_at": None} if isinstance(result, Base) else result


CALLS: dict[str, Callable[[Session], Any]] = {
    "acquire": lambda session: leases.try_acquire(none, session, "free", ttl=LONG),
    "take over": lambda session: leases.try_acquire(none, session, "released", ttl=LONG),
    "renew": lambda session: leases.renew(none, session, HELD, ttl=LONG),
    "release": lambda session: leases.release(none, session, HELD),
    "keep": lambda session: leases._keep(none, session, [HELD], LONG),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_run_again_gives_the_same_and_does_nothing_twice(store: Store, name: str) -> None:
    assert store.leases.acquire("held", ttl=LONG).token == 1
    store.leases.release(store.leases.acquire("released", ttl=LONG))
    first, second = store.bind(Doubter).twice(CALLS[name])
    assert plain(first) == plain(second)
    tokens = {lease.name: lease.token for lease in store.leases.iterate()}
    expected = {"held": 1, "acquire": 1, "take over": 2}
    if name == "acquire":
        assert tokens == {"held": 1, "free": 1}
    elif name == "take over":
        assert tokens == {"held": 1, "released": expected[name]}
    else:
        assert tokens == ({} if name == "release" else {"held": 1})


def test_a_lease_that_somebody_else_has_by_the_second_run_is_not_taken_for_ones_own(store: Store) -> None:
    def take_over(session: Session) -> Any:
        leases.release(none, session, Fence("free", 1))
        return leases.try_acquire(none, session, "free", ttl=LONG)

    first, second = store.bind(Doubter).twice(CALLS["acquire"], take_over)
    assert (first.token, second) == (1, None)
    assert store.leases.get("free").token == 2


def test_a_release_after_which_somebody_else_acquired_it_is_told_as_lost_when_its_answer_was_lost(store: Store) -> None:
    store.leases.acquire("held", ttl=LONG)

    def take_over(session: Session) -> Any:
        return leases.try_acquire(none, session, "held", ttl=LONG)

    with pytest.raises(LeaseLostError):
        store.bind(Doubter).twice(CALLS["release"], take_over)
