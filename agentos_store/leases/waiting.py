"""Waiting for a lease without holding a connection or the queue of writers meanwhile, and holding it for a block."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agentos_store.errors import LeaseLostError, LockTimeoutError, StoreError, UsageError
from agentos_store.leases.held import AwaitedLease, Held, HeldLease
from agentos_store.leases.models import Lease
from agentos_store.types import check_duration

if TYPE_CHECKING:
    from agentos_store.leases.repository import LeaseRepository
    from agentos_store.operation import Awaiting, Blocking

R = TypeVar("R")

log = logging.getLogger("agentos_store.leases")


FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
"""Seconds between two looks at a lease that is held."""
JITTER = 0.3


class Standing(NamedTuple):
    """How a lease stands, by the database's clock."""

    free: bool
    owner: str | None
    """Who has it, or had it when it lapsed; None when it was given back."""
    remaining: float
    """Seconds until it lapses."""


UNKNOWN = Standing(free=True, owner=None, remaining=0.0)


class Patience:
    """How long somebody waits for a lease, and when to look again."""

    def __init__(self, repository: LeaseRepository[Any], name: str, wait: dt.timedelta | None) -> None:
        if wait is not None:
            check_duration("wait", wait, zero_too=True)
            if repository.in_transaction:
                raise UsageError("leases.acquire: wait for a lease outside the transaction, which would hold up others")
        self._name = name
        self._start = time.monotonic()
        self._end = self._start + (0.0 if wait is None else wait.total_seconds())
        self._pause = FIRST_PAUSE

    def pause(self, standing: Standing) -> float:
        """Return the seconds until the next look; raise LockTimeoutError that names the holder when the time is up."""
        now = time.monotonic()
        if now >= self._end:
            raise LockTimeoutError(f"lease {self._name!r}", waited=now - self._start, holder=standing.owner)
        pause = self._pause * random.uniform(1.0 - JITTER, 1.0 + JITTER)
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        if not standing.free:
            # A moment later than it lapses, for the clocks do not run alike.
            pause = min(pause, standing.remaining + 0.001)
        return min(pause, self._end - now)

    def bear(self, error: LockTimeoutError) -> float:
        """Return the seconds until the next try after one that came to no turn; raise its error when the time is up."""
        if time.monotonic() >= self._end:
            raise error
        return self.pause(UNKNOWN)


def acquire(
    repository: LeaseRepository[Blocking],
    name: str,
    *,
    owner: str | None = None,
    ttl: dt.timedelta,
    wait: dt.timedelta | None = None,
) -> Lease:
    """Acquire the lease for ``ttl`` by the database's clock, once it is free; wait for that no longer than ``wait``.

    Its token is greater than that of any holder before. Of several that wait any one may come next. Whoever has it
    already waits like anybody else: a name is held once, whoever asks. ``owner`` is for people to read; without one it
    is host and process.
    Meanwhile no connection is held, so inside a transaction there is no waiting. LockTimeoutError names the holder;
    the last try may end a lock timeout later than ``wait``.
    """
    return _obtain(repository, name, owner, ttl, wait)[0]


async def acquire_awaiting(
    repository: LeaseRepository[Awaiting],
    name: str,
    *,
    owner: str | None = None,
    ttl: dt.timedelta,
    wait: dt.timedelta | None = None,
) -> Lease:
    """Acquire the lease as the blocking face does; cancelled, it gives back what it may just have acquired."""
    return (await _obtain_awaiting(repository, name, owner, ttl, wait))[0]


def hold(
    repository: LeaseRepository[Blocking],
    name: str,
    *,
    owner: str | None = None,
    ttl: dt.timedelta,
    wait: dt.timedelta | None = None,
) -> AbstractContextManager[HeldLease]:
    """Hold the lease for a block: ``acquire`` it, renew it each third of ``ttl`` in the background, give it back.

    When it is lost on the way the block is not interrupted: ``lease.is_lost`` tells, and ``guard`` refuses what is
    written too late. A block that ends well after the loss raises LeaseLostError. A lease that cannot be given back,
    because the store is closed or the database is away, lapses.
    """
    return _hold(repository, name, owner, ttl, wait)


def hold_awaiting(
    repository: LeaseRepository[Awaiting],
    name: str,
    *,
    owner: str | None = None,
    ttl: dt.timedelta,
    wait: dt.timedelta | None = None,
) -> AbstractAsyncContextManager[AwaitedLease]:
    """Hold the lease for a block as the blocking face does; a task of the event loop renews it."""
    return _hold_awaiting(repository, name, owner, ttl, wait)


# --- blocking


def _obtain(
    repository: LeaseRepository[Blocking], name: str, owner: str | None, ttl: dt.timedelta, wait: dt.timedelta | None
) -> tuple[Lease, float]:
    """Return the lease, and when it was asked for by the monotonic clock."""
    patience = Patience(repository, name, wait)
    standing = UNKNOWN
    while True:
        if standing.free:
            sent = time.monotonic()
            try:
                lease = repository.try_acquire(name, owner=owner, ttl=ttl)
            except LockTimeoutError as error:
                time.sleep(patience.bear(error))
                continue
            if lease is not None:
                return lease, sent
            standing = repository._look(name)  # noqa: SLF001  the two are one mechanism
        time.sleep(patience.pause(standing))
        standing = repository._look(name)  # noqa: SLF001


@contextlib.contextmanager
def _hold(
    repository: LeaseRepository[Blocking], name: str, owner: str | None, ttl: dt.timedelta, wait: dt.timedelta | None
) -> Iterator[HeldLease]:
    _refuse_in_transaction(repository)
    lease, sent = _obtain(repository, name, owner, ttl, wait)
    held = HeldLease(lease, ttl, sent)
    keeper = repository._threads  # noqa: SLF001
    keeper.add(held)
    try:
        yield held
    except BaseException:
        keeper.remove(held)
        with contextlib.suppress(LeaseLostError):
            _leave(held, lambda: repository.release(held))
        raise
    keeper.remove(held)
    _leave(held, lambda: repository.release(held))


def _leave(held: Held, release: Callable[[], None]) -> None:
    if held.is_own:
        try:
            release()
        except LeaseLostError:
            held.lose()
            raise
        except StoreError as error:
            _tell_of_lapsing(error)


# --- awaiting


async def _obtain_awaiting(
    repository: LeaseRepository[Awaiting], name: str, owner: str | None, ttl: dt.timedelta, wait: dt.timedelta | None
) -> tuple[Lease, float]:
    patience = Patience(repository, name, wait)
    standing = UNKNOWN
    while True:
        if standing.free:
            sent = time.monotonic()
            try:
                lease = await _try(repository, name, owner, ttl)
            except LockTimeoutError as error:
                await asyncio.sleep(patience.bear(error))
                continue
            if lease is not None:
                return lease, sent
            standing = await repository._look(name)  # noqa: SLF001  as above
        await asyncio.sleep(patience.pause(standing))
        standing = await repository._look(name)  # noqa: SLF001


async def _try(repository: LeaseRepository[Awaiting], name: str, owner: str | None, ttl: dt.timedelta) -> Lease | None:
    """Try once; cancelled, wait for the outcome all the same, and give back what nobody will use."""
    attempt = asyncio.ensure_future(repository.try_acquire(name, owner=owner, ttl=ttl))
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        with contextlib.suppress(StoreError, asyncio.CancelledError):
            lease = await _outlast(attempt)
            if lease is not None:
                await _outlast(asyncio.ensure_future(repository.release(lease)))
        raise


async def _outlast(future: asyncio.Future[R]) -> R:
    """Wait for the result whatever cancellations come meanwhile; they are the caller's to pass on."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    return future.result()


async def _finish(coroutine: Coroutine[Any, Any, R]) -> R:
    """Wait for the result; a cancellation that comes meanwhile is raised afterwards."""
    future = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.cancelled():
            await _outlast(future)
        raise


@contextlib.asynccontextmanager
async def _hold_awaiting(
    repository: LeaseRepository[Awaiting], name: str, owner: str | None, ttl: dt.timedelta, wait: dt.timedelta | None
) -> AsyncIterator[AwaitedLease]:
    _refuse_in_transaction(repository)
    lease, sent = await _obtain_awaiting(repository, name, owner, ttl, wait)
    held = AwaitedLease(lease, ttl, sent)
    keeper = repository._tasks  # noqa: SLF001
    keeper.add(held)
    try:
        yield held
    except BaseException:
        keeper.remove(held)
        with contextlib.suppress(LeaseLostError):
            await _finish(_leave_awaiting(held, repository))
        raise
    keeper.remove(held)
    await _finish(_leave_awaiting(held, repository))


async def _leave_awaiting(held: Held, repository: LeaseRepository[Awaiting]) -> None:
    if held.is_own:
        try:
            await repository.release(held)
        except LeaseLostError:
            held.lose()
            raise
        except StoreError as error:
            _tell_of_lapsing(error)


# --- both


def _refuse_in_transaction(repository: LeaseRepository[Any]) -> None:
    if repository.in_transaction:
        raise UsageError("leases.hold: hold a lease around the transaction, and guard it inside with leases.guard")


def _tell_of_lapsing(error: StoreError) -> None:
    code = getattr(error, "code", None) or type(error).__name__
    log.warning("a lease could not be given back (%s) and stays until it lapses", code)
