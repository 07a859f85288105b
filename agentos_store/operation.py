"""One body, two faces: a repository method is written once, against a session, and called in two ways.

::

    class TaskRepository(Repository[F]):
        @reads
        def get(self, session: Session, task_id: str) -> Task: ...

    store.tasks.get(key)                          # Store: -> Task
    await async_store.tasks.get(key)              # AsyncStore: -> Task
    TaskRepository.get(self, session, key)        # inside another body: the body itself, in the same transaction

A body may be run more than once (another writer in its group failed, or the connection was cut), so it does nothing but
talk to its session and compute.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from agentos_store.errors import UsageError

if TYPE_CHECKING:
    from agentos_store.engine.bell import Bell
    from agentos_store.engine.session import Session
    from agentos_store.page import Page

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Face:
    """How the methods of a repository are called."""


class Blocking(Face):
    """Methods return their result."""


class Awaiting(Face):
    """Methods return a coroutine."""


F = TypeVar("F", bound=Face, covariant=True)  # noqa: PLC0105  the name stands in every repository's signature
"""The face of a repository: ``Blocking`` or ``Awaiting``."""


class Access(Enum):
    """What a body does to the database, which decides how it is run."""

    READ = "read"
    """Only reads, with one statement, or with several that need not see the same moment."""
    SNAPSHOT = "snapshot"
    """Only reads, with several statements that see one moment."""
    WRITE = "write"
    """Reads and writes, in a transaction."""
    STATEMENT = "statement"
    """Writes with one statement where the database can do it in one, so that no BEGIN and COMMIT need be sent."""

    @property
    def reads(self) -> bool:
        """Whether nothing is written."""
        return self in (Access.READ, Access.SNAPSHOT)


class Runner(Protocol):
    """Runs bodies: in a transaction of their own, or in one that is open."""

    in_transaction: bool
    """Whether it is one that is open."""

    def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        """Run the body with a session and return its result, or a coroutine that does.

        One that ``may_lag`` may be answered by a replica, which has what this store wrote.
        """

    @property
    def bell(self) -> Bell | None:
        """Who waits for the news of the database; None in a transaction, where nothing new is seen."""


class Repository(Generic[F]):
    """The operations of one domain, bound to something that runs them."""

    name: str = "repository"
    """The attribute of the store that holds it."""

    may_lag = True
    """Whether a replica may answer its reads, which may lack what other processes wrote just now."""

    def __init__(self, runner: Runner, *, asynchronous: bool = False) -> None:
        self._runner = runner
        self._asynchronous = asynchronous


_inside = threading.local()


def run_body(body: Callable[[Session], R], session: Session) -> R:
    """Run a body; meanwhile this thread refuses to call a bound face, which would open a second transaction."""
    refuse_inside_body()
    _inside.body = True
    try:
        return body(session)
    finally:
        _inside.body = False


def refuse_inside_body() -> None:
    """Raise UsageError when this thread is running a body."""
    if getattr(_inside, "body", False):
        raise UsageError("an operation was called from inside another one; call the body through its class instead")


def repeatable(body: Callable[P, R]) -> Callable[P, R]:
    """Mark a body that can be run again although its last run may have been committed; put it below ``writes``.

    Such a body finds by its key (``session.new_ulid`` gives the same one again), or by a state that it asks for, that
    the work is done.
    """
    body.__repeatable__ = True  # type: ignore[attr-defined]  # a mark, read by the operation
    return body


class _Operation(Generic[P, R]):
    """A repository method: the body on the class, a bound face on an instance."""

    access = Access.WRITE

    def __init__(self, body: Callable[Concatenate[Any, Session, P], R]) -> None:
        self.body = body
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__
        self.__wrapped__ = body

    def __set_name__(self, owner: type, name: str) -> None:
        self.__name__ = name

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, Session, P], R]: ...
    @overload
    def __get__(self, instance: Repository[Blocking], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: Repository[Awaiting], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Repository[Any] | None, owner: type) -> Any:
        if instance is None:
            return self.body
        bound = self._bind(instance)
        # The descriptor has no __set__, so from now on the instance's own attribute is found first.
        instance.__dict__[self.__name__] = bound
        return bound

    def _bind(self, instance: Repository[Any]) -> Callable[..., Any]:
        body, access, call = self.body, self.access, instance._runner.call  # noqa: SLF001  the two are one mechanism
        name = f"{instance.name}.{self.__name__}"
        may_repeat = access.reads or getattr(body, "__repeatable__", False)
        may_lag = access.reads and instance.may_lag

        def bound(*args: Any, **kwargs: Any) -> Any:
            refuse_inside_body()

            def work(session: Session) -> Any:
                return body(instance, session, *args, **kwargs)

            return call(access, name, work, repeatable=may_repeat, may_lag=may_lag)

        return functools.update_wrapper(bound, body)


class reads(_Operation[P, R]):  # noqa: N801  used as a decorator
    """Mark a body that only reads."""

    access = Access.READ


class reads_together(_Operation[P, R]):  # noqa: N801  used as a decorator
    """Mark a body that reads with several statements which have to see one moment."""

    access = Access.SNAPSHOT


class writes(_Operation[P, R]):  # noqa: N801  used as a decorator
    """Mark a body that writes; it gets a transaction."""

    access = Access.WRITE


class writes_once(_Operation[P, R]):  # noqa: N801  used as a decorator
    """Mark a body that writes with a single statement where the database can: the session refuses a second write there.

    After a write that changed no row the body may still read, to find out why, or begin a transaction.
    """

    access = Access.STATEMENT


class walks(Generic[P, T]):  # noqa: N801  used like the decorators above
    """An iterator over all pages of a ``list`` operation, a page at a time, each in a transaction of its own.

    Rows that are added or changed behind the cursor while it walks are not seen; none is seen twice.
    """

    def __init__(self, operation: _Operation[P, Page[T]]) -> None:
        self.operation = operation

    @overload
    def __get__(self, instance: None, owner: type) -> walks[P, T]: ...
    @overload
    def __get__(self, instance: Repository[Blocking], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Repository[Awaiting], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Repository[Any] | None, owner: type) -> Any:
        if instance is None:
            return self
        fetch = self.operation.__get__(instance, owner)
        return _walk_async(fetch) if instance._asynchronous else _walk(fetch)  # noqa: SLF001  as above


def _walk(fetch: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        page = fetch(*args, **kwargs)
        yield from page.items
        while page.next is not None:
            page = fetch(*args, **{**kwargs, "cursor": page.next})
            yield from page.items

    return iterate


def _walk_async(fetch: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def iterate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        page = await fetch(*args, **kwargs)
        for item in page.items:
            yield item
        while page.next is not None:
            page = await fetch(*args, **{**kwargs, "cursor": page.next})
            for item in page.items:
                yield item

    return iterate


Steps = Generator[Callable[[], Any], Any, R]
"""Calls of bound operations, each of which is sent its result; what the generator returns is the result of all."""


class in_steps(Generic[P, R]):  # noqa: N801  used as a decorator
    """Mark an operation that is made of others, each in a transaction of its own unless the caller holds one.

    It is written once, as a generator of calls: ``found = yield lambda: self.find(key)``. An error of a call is raised
    where the call was yielded. There is no body that another one could call.
    """

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[R]]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> in_steps[P, R]: ...
    @overload
    def __get__(self, instance: Repository[Blocking], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: Repository[Awaiting], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Repository[Any] | None, owner: type) -> Any:
        if instance is None:
            return self
        follow = _follow_async if instance._asynchronous else _follow  # noqa: SLF001  as above
        return functools.update_wrapper(follow(functools.partial(self.steps, instance)), self.steps)


def _follow(begin: Callable[..., Steps[Any]]) -> Callable[..., Any]:
    def operation(*args: Any, **kwargs: Any) -> Any:
        steps = begin(*args, **kwargs)
        try:
            call = next(steps)
            while True:
                try:
                    found = call()
                except Exception as error:  # noqa: BLE001  the steps decide
                    call = steps.throw(error)
                else:
                    call = steps.send(found)
        except StopIteration as end:
            return end.value

    return operation


def _follow_async(begin: Callable[..., Steps[Any]]) -> Callable[..., Any]:
    async def operation(*args: Any, **kwargs: Any) -> Any:
        steps = begin(*args, **kwargs)
        try:
            call = next(steps)
            while True:
                try:
                    found = await call()
                except Exception as error:  # noqa: BLE001  the steps decide
                    call = steps.throw(error)
                else:
                    call = steps.send(found)
        except StopIteration as end:
            return end.value

    return operation
