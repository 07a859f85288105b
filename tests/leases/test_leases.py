"""Acquiring, renewing, guarding and giving back, on both databases."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import (
    InvalidValueError,
    LeaseLostError,
    LockTimeoutError,
    NotFoundError,
    Store,
    UsageError,
)
from agentos_store.leases.models import Fence, Lease
from tests.leases.moments import LONG, SHORT, wait_until_lapsed


def test_a_lease_is_held_once_whoever_asks(store: Store) -> None:
    lease = store.leases.acquire("agent-1", owner="a", ttl=LONG)
    assert (lease.name, lease.owner, lease.token) == ("agent-1", "a", 1)
    assert lease.expires_at - lease.acquired_at == pytest.approx(LONG, abs=dt.timedelta(seconds=1))
    assert store.leases.try_acquire("agent-1", owner="b", ttl=LONG) is None
    # Not even its owner: two threads of one process may say the same name.
    assert store.leases.try_acquire("agent-1", owner="a", ttl=LONG) is None
    assert store.leases.get("agent-1").to_dict() == lease.to_dict()


def test_the_error_names_the_lease_and_its_holder(store: Store) -> None:
    store.leases.acquire("agent-1", owner="worker-7", ttl=LONG)
    with pytest.raises(LockTimeoutError) as caught:
        store.leases.acquire("agent-1", ttl=LONG)
    assert (caught.value.what, caught.value.holder, caught.value.code) == ("lease 'agent-1'", "worker-7", None)


def test_without_an_owner_it_is_host_and_process(store: Store) -> None:
    import os
    import socket

    assert store.leases.acquire("agent-1", ttl=LONG).owner == f"{socket.gethostname()}:{os.getpid()}"


def test_tokens_grow_after_a_release_and_after_a_lapse(store: Store) -> None:
    first = store.leases.acquire("agent-1", ttl=LONG)
    store.leases.release(first)
    second = store.leases.acquire("agent-1", ttl=SHORT)
    wait_until_lapsed(store, "agent-1")
    third = store.leases.acquire("agent-1", ttl=LONG)
    assert [each.token for each in (first, second, third)] == [1, 2, 3]
    assert store.leases.acquire("agent-2", ttl=LONG).token == 1


def test_what_nobody_holds_is_not_there(store: Store) -> None:
    store.leases.release(store.leases.acquire("released", ttl=LONG))
    store.leases.acquire("lapsed", ttl=SHORT)
    wait_until_lapsed(store, "lapsed")
    for name in ("released", "lapsed", "never"):
        assert store.leases.find(name) is None
        assert not store.leases.exists(name)
        with pytest.raises(NotFoundError):
            store.leases.get(name)
    assert store.leases.count() == 0
    assert store.leases.holders().items == []


def test_a_renewal_lets_it_last_from_now(store: Store) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)
    renewed = store.leases.renew(lease, ttl=2 * LONG)
    assert renewed.expires_at - lease.expires_at >= LONG
    assert (renewed.token, renewed.acquired_at) == (lease.token, lease.acquired_at)
    # It may also end sooner than it did.
    assert store.leases.renew(Fence("agent-1", lease.token), ttl=LONG).expires_at < renewed.expires_at


@pytest.mark.parametrize("how", ["released", "lapsed", "taken over", "another token", "never"])
def test_what_is_lost_is_neither_renewed_nor_released_nor_guarded(store: Store, how: str) -> None:
    lease = Fence("agent-1", 1)
    if how != "never":
        own = store.leases.acquire("agent-1", ttl=LONG if how in {"released", "another token"} else SHORT)
        lease = Fence(own.name, own.token + (how == "another token"))
    if how == "released":
        store.leases.release(lease)
    if how in {"lapsed", "taken over"}:
        wait_until_lapsed(store, "agent-1")
    if how == "taken over":
        store.leases.acquire("agent-1", ttl=LONG)
    before = store.leases.find("agent-1")

    def guard() -> None:
        with store.transaction() as tx:
            tx.leases.guard(lease)

    calls: list[Callable[[], object]] = [
        lambda: store.leases.renew(lease, ttl=LONG),
        lambda: store.leases.release(lease),
        guard,
    ]
    for call in calls:
        with pytest.raises(LeaseLostError) as caught:
            call()
        assert (caught.value.name, caught.value.token) == tuple(lease)
    after = store.leases.find("agent-1")
    assert (before and before.to_dict()) == (after and after.to_dict())


def test_an_operator_takes_away_what_the_list_of_holders_shows(store: Store) -> None:
    store.leases.acquire("agent-1", owner="stuck", ttl=LONG)
    (found,) = store.leases.holders("agent")
    store.leases.release(found)
    assert store.leases.acquire("agent-1", ttl=LONG).token == 2


def test_a_guarded_write_is_stored_with_its_transaction(store: Store) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)
    with store.transaction() as tx:
        tx.leases.guard(lease)
        tx.tasks.create(title="in time")
    assert store.tasks.count() == 1

    def write_late() -> None:
        with store.transaction() as tx:
            tx.tasks.create(title="late")
            tx.leases.guard(Fence("agent-1", lease.token - 1))

    with pytest.raises(LeaseLostError):
        write_late()
    assert store.tasks.count() == 1


def test_run_guards_like_a_transaction(store: Store) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)

    def work(tx: Any) -> str:
        tx.leases.guard(lease)
        return str(tx.tasks.create(title="in time").title)

    assert store.run(work) == "in time"


def test_a_guard_outside_a_transaction_is_refused_and_so_is_one_that_only_reads(store: Store) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)
    with pytest.raises(UsageError, match="inside a transaction"):
        store.leases.guard(lease)
    with store.transaction(read_only=True) as tx, pytest.raises(UsageError, match="only reads"):
        tx.leases.guard(lease)


def test_nobody_waits_and_nothing_is_held_inside_a_transaction(store: Store) -> None:
    with store.transaction() as tx:
        with pytest.raises(UsageError, match="outside the transaction"):
            tx.leases.acquire("agent-1", ttl=LONG, wait=LONG)
        with pytest.raises(UsageError, match="around the transaction"), tx.leases.hold("agent-1", ttl=LONG):
            pass
        assert tx.leases.acquire("agent-1", ttl=LONG).token == 1
        with pytest.raises(LockTimeoutError):
            tx.leases.acquire("agent-1", ttl=LONG)
    assert store.leases.exists("agent-1")


def test_an_acquisition_goes_with_its_transaction(store: Store) -> None:
    def fail() -> None:
        with store.transaction() as tx:
            tx.leases.acquire("agent-1", ttl=LONG)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.leases.acquire("agent-1", ttl=LONG).token == 1


NAMES = [
    "x",
    "parent/fork-1795240070871",
    "100%",
    "a_b",
    "Agent-1",
    "agent-1",
    "'; DROP TABLE leases; --",
    "锁",
    "🔒",
    " ",
    "n" * 255,
]


def test_a_name_is_literal(store: Store) -> None:
    for name in NAMES:
        assert store.leases.acquire(name, ttl=LONG).name == name
    assert [lease.name for lease in store.leases.iterate()] == sorted(NAMES)
    for name in NAMES:
        found = [lease.name for lease in store.leases.holders(name)]
        assert found == sorted(each for each in NAMES if each.startswith(name))


def test_holders_are_listed_by_name_and_paged(store: Store) -> None:
    for number in range(5):
        store.leases.acquire(f"agent-{number}", owner=f"owner-{number % 2}", ttl=LONG)
    store.leases.acquire("task-1", owner="owner-0", ttl=LONG)
    page = store.leases.holders("agent-", limit=3)
    assert [lease.name for lease in page] == ["agent-0", "agent-1", "agent-2"]
    page = store.leases.holders("agent-", limit=3, cursor=page.next)
    assert ([lease.name for lease in page], page.next) == (["agent-3", "agent-4"], None)
    assert [lease.name for lease in store.leases.iterate(owner="owner-1")] == ["agent-1", "agent-3"]
    assert [lease.name for lease in store.leases.list(order="-name", limit=1)] == ["task-1"]
    assert [store.leases.count(**each) for each in ({}, {"prefix": "agent"}, {"owner": "owner-0"})] == [6, 5, 4]
    assert store.leases.holders("agent-9").items == []
    assert store.leases.count(prefix="") == 6


@pytest.mark.parametrize(
    "ttl", [dt.timedelta(0), dt.timedelta(seconds=-1), dt.timedelta.max, 5, math.nan, math.inf, None, "5", True]
)
def test_a_duration_of_zero_or_less_or_of_no_meaning_is_refused(store: Store, ttl: Any) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)
    calls: list[Callable[[], object]] = [
        lambda: store.leases.acquire("x", ttl=ttl),
        lambda: store.leases.try_acquire("x", ttl=ttl),
        lambda: store.leases.hold("x", ttl=ttl).__enter__(),
        lambda: store.leases.renew(lease, ttl=ttl),
    ]
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == "ttl"
    if ttl is not None and ttl != dt.timedelta(0):
        with pytest.raises(InvalidValueError) as caught:
            store.leases.acquire("x", ttl=LONG, wait=ttl)
        assert caught.value.name == "wait"
    assert store.leases.count() == 1


@pytest.mark.parametrize("name", ["", "n" * 256, "a\0", "a\n", "\ud800", 5, None, b"a"])
def test_a_name_or_an_owner_that_is_none_is_refused(store: Store, name: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.leases.acquire(name, ttl=LONG)
    assert caught.value.name == "name"
    if name is not None:
        with pytest.raises(InvalidValueError) as caught:
            store.leases.acquire("x", owner=name, ttl=LONG)
        assert caught.value.name == "owner"
        with pytest.raises(InvalidValueError):
            store.leases.get(name)


@pytest.mark.parametrize("lease", ["agent-1", ("agent-1", 1), None, Fence("", 1), Fence("x", True), Fence("x", 2**63)])
def test_what_is_no_lease_is_refused(store: Store, lease: Any) -> None:
    with pytest.raises(InvalidValueError):
        store.leases.release(lease)
    with pytest.raises(InvalidValueError):
        store.leases.renew(lease, ttl=LONG)
    with store.transaction() as tx, pytest.raises(InvalidValueError):
        tx.leases.guard(lease)


def test_a_lease_lapses_by_a_clock_that_moves_within_a_transaction(store: Store) -> None:
    with store.transaction() as tx:
        tx.leases.acquire("agent-1", ttl=SHORT)
        while tx.leases.exists("agent-1"):
            pass
        assert tx.leases.acquire("agent-1", ttl=LONG).token == 2


def test_its_representation_shows_its_name_only(store: Store) -> None:
    assert repr(store.leases.acquire("agent-1", ttl=LONG)) == "Lease(name='agent-1')"
    assert isinstance(store.leases.get("agent-1"), Lease)
