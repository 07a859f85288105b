"""Subscriptions: events one after another, in order, each once, for as long as somebody wants them.

A thread takes the steps of a course with calls that return, an event loop with calls that are awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, overload

from agentos_store.engine.bell import Bell, Waiter
from agentos_store.errors import UsageError
from agentos_store.events.course import Course, Read, Step, Wait
from agentos_store.events.models import Event
from agentos_store.operation import Awaiting, Blocking, Repository, Runner, refuse_inside_body

P = ParamSpec("P")

NAME = "events.subscribe"


class _Steps:
    """The step that is to be taken. One that fails or is cancelled stays, so that it can be taken again."""

    def __init__(self, course: Course, runner: Runner, on_wake: Callable[[], None] | None = None) -> None:
        if runner.bell is None:
            raise UsageError("subscribe to the store, not inside a transaction, which sees nothing new")
        self.course = course
        self.runner = runner
        self.waiter = Waiter(runner, on_wake)
        self._generator = course.steps()
        self.step: Step | None = next(self._generator)
        self._is_out = False
        self._taken = threading.Lock()

    def go_on(self, result: object = None) -> None:
        """Move to the next step."""
        try:
            self.step = self._generator.send(result)
        except BaseException as error:
            self.step = None
            self.waiter.leave()
            if not isinstance(error, StopIteration):
                raise

    def hand_out(self, event: Event) -> Event | None:
        """Return the event the first time. Until the next is asked for, the bookmark stands behind this one."""
        self._is_out = not self._is_out
        if self._is_out:
            return event
        self.go_on()
        return None

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Let one take an event at a time: two would get a step's result twice."""
        if not self._taken.acquire(blocking=False):
            raise UsageError("this subscription waits for an event already; subscribe once for each who takes events")
        try:
            yield
        finally:
            self._taken.release()

    def begin(self, read: Read) -> None:
        """Be woken for whatever is committed from now on."""
        bell = self.bell()
        if self.waiter.bell is not bell:
            bell.enter(self.waiter)
        if read.is_look:
            self.waiter.clear()

    def bell(self) -> Bell:
        """Return the bell, which is another one after a fork."""
        bell = self.runner.bell
        assert bell is not None
        return bell

    def patience(self, wait: Wait) -> float:
        """Return the seconds to wait at most."""
        bell = self.bell()
        if self.waiter.bell is not bell:
            # A forked child has a bell that does not know of it yet.
            return 0.0
        interval = bell.interval
        return interval if wait.seconds is None else max(0.0, min(interval, wait.seconds))

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to come."""
        return self.step is None or self.waiter.dismissed


class Subscription(Iterator[Event]):
    """Events in order, each once; a ``for`` loop over it ends when it, or the store, is closed.

    One thread takes the events; any thread may close it.
    """

    def __init__(self, course: Course, runner: Runner) -> None:
        """Use ``store.events.subscribe``."""
        self._steps = _Steps(course, runner)
        # What "from now on" means is settled here, and not when the first event is asked for.
        while not course.has_begun:
            self._take_one()

    @property
    def bookmark(self) -> str | None:
        """Where to go on: behind the event that was handed out last, and what filters kept back since."""
        reached = self._steps.course.reached
        return None if reached is None else reached.write()

    def __next__(self) -> Event:
        """Wait for the next event; StopIteration at the end of the time limit, or when closed."""
        with self._steps.taking():
            while not self._steps.has_ended:
                event = self._take_one()
                if event is not None:
                    return event
        raise StopIteration

    def _take_one(self) -> Event | None:
        steps = self._steps
        step = steps.step
        if isinstance(step, Event):
            return steps.hand_out(step)
        if isinstance(step, Wait):
            steps.waiter.wait(steps.patience(step))
            steps.go_on()
        elif step is not None:
            try:
                steps.begin(step)
                result = steps.runner.call(step.access, NAME, step.body, repeatable=True)
            except UsageError:
                # The store was closed meanwhile.
                if not steps.waiter.dismissed:
                    raise
            else:
                steps.go_on(result)
        return None

    def close(self) -> None:
        """End it, from whatever thread; whoever waits for the next event waits no more."""
        self._steps.waiter.leave()

    def __enter__(self) -> Self:
        """Close it at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSubscription(AsyncIterator[Event]):
    """Events in order, each once; an ``async for`` loop over it ends when it, or the store, is closed.

    "From now on" begins with ``async with``, or when the first event is asked for. A cancelled wait loses nothing.
    """

    def __init__(self, course: Course, runner: Runner) -> None:
        """Use ``store.events.subscribe``."""
        self._waking: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        # Weakly, so that one that a loop has broken off is gone with its last reference.
        mine = weakref.ref(self)
        self._steps = _Steps(course, runner, lambda: _wake(mine()))

    @property
    def bookmark(self) -> str | None:
        """Where to go on: behind the event that was handed out last, and what filters kept back since."""
        reached = self._steps.course.reached
        return None if reached is None else reached.write()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event; StopAsyncIteration at the end of the time limit, or when closed."""
        with self._steps.taking():
            while not self._steps.has_ended:
                event = await self._take_one()
                if event is not None:
                    return event
        raise StopAsyncIteration

    async def _take_one(self) -> Event | None:
        steps = self._steps
        step = steps.step
        if isinstance(step, Event):
            return steps.hand_out(step)
        if isinstance(step, Wait):
            await self._wait(steps.patience(step))
            steps.go_on()
        elif step is not None:
            try:
                steps.begin(step)
                result = await steps.runner.call(step.access, NAME, step.body, repeatable=True)
            except UsageError:
                # The store was closed meanwhile.
                if not steps.waiter.dismissed:
                    raise
            else:
                steps.go_on(result)
        return None

    async def _wait(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._waking = asyncio.get_running_loop(), woken
        try:
            # Rung before anybody could be told.
            if not self._steps.waiter.is_woken:
                # Python 3.11's wait_for() would swallow a cancellation that meets the ringing.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken.wait()
        finally:
            self._waking = None

    async def aclose(self) -> None:
        """End it; whoever waits for the next event waits no more."""
        self._steps.waiter.leave()

    async def __aenter__(self) -> Self:
        """Begin now, and close it at the end of the block."""
        with self._steps.taking():
            while not self._steps.course.has_begun and not self._steps.has_ended:
                await self._take_one()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _wake(subscription: AsyncSubscription | None) -> None:
    waking = None if subscription is None else subscription._waking  # noqa: SLF001  its own
    if waking is not None:
        # The loop may have been closed.
        with contextlib.suppress(RuntimeError):
            waking[0].call_soon_threadsafe(waking[1].set)


class subscribes(Generic[P]):  # noqa: N801  used as a decorator
    """Mark a method that returns the course of a subscription; calling it gives the subscription itself."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Course]) -> None:
        self.plan = plan
        self.__doc__ = plan.__doc__
        self.__wrapped__ = plan

    @overload
    def __get__(self, instance: None, owner: type) -> subscribes[P]: ...
    @overload
    def __get__(self, instance: Repository[Blocking], owner: type) -> Callable[P, Subscription]: ...
    @overload
    def __get__(self, instance: Repository[Awaiting], owner: type) -> Callable[P, AsyncSubscription]: ...
    def __get__(self, instance: Repository[Any] | None, owner: type) -> Any:
        if instance is None:
            return self
        runner, asynchronous = instance._runner, instance._asynchronous  # noqa: SLF001  the two are one mechanism

        def subscribe(*args: P.args, **kwargs: P.kwargs) -> Subscription | AsyncSubscription:
            refuse_inside_body()
            course = self.plan(instance, *args, **kwargs)
            return AsyncSubscription(course, runner) if asynchronous else Subscription(course, runner)

        return functools.update_wrapper(subscribe, self.plan)
