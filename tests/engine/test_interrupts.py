"""Interrupts and exits in the queue of writers: whoever is hit, the others go on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.errors import (
    LockTimeoutError,
)
from tests.engine.gather import one_group, open_file, threads, titles, wait_for
from tests.engine.probe import fail, probe


class Exit(BaseException):
    """Neither an error nor an interrupt."""


def leave(_: Session) -> None:
    raise Exit


def test_a_body_that_raises_an_exit_in_the_lead_of_another_thread_gets_it_back_itself(sqlite: Store) -> None:
    work = probe(sqlite)
    works = [lambda: work.create("a"), lambda: work.create("lost", leave), lambda: work.create("b")]
    with one_group(sqlite, works) as outcomes:
        assert isinstance(outcomes[1], Exit)
    assert titles(sqlite) == ["a", "b"]


def test_an_interrupt_of_the_leader_gives_the_others_back_to_the_queue(sqlite: Store) -> None:
    """The main thread leads, and while it runs another thread's job it is interrupted."""
    work = probe(sqlite)
    main = threading.current_thread()

    def interrupt(_: Session) -> None:
        if threading.current_thread() is main:
            raise KeyboardInterrupt

    queue = sqlite._backend.queue  # type: ignore[attr-defined]
    started: list[threading.Thread] = []

    def enlist_others(_: Session) -> None:
        if not started:
            for body in (None, interrupt, None):
                started.append(threading.Thread(target=work.create, args=("other", body)))
                started[-1].start()
                wait_for(lambda: len(queue._waiting) == len(started))

    with pytest.raises(KeyboardInterrupt):
        work.create("mine", enlist_others)
    for thread in started:
        thread.join(5)
    assert titles(sqlite) == ["other"] * 3


def test_a_waiter_that_is_interrupted_leaves_the_queue(sqlite: Store) -> None:
    work = probe(sqlite)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            work.create("interrupted")
        except BaseException as error:  # noqa: BLE001  the test looks at it
            failures.append(error)

    queue = sqlite._backend.queue  # type: ignore[attr-defined]
    thread = threading.Thread(target=wait)
    with sqlite.transaction():
        thread.start()
        wait_for(lambda: len(queue._waiting) == 1)
        # It notices when its wait for the lock ends.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Exit))
        thread.join(5)
    assert [type(each) for each in failures] in ([Exit], [LockTimeoutError])
    assert sqlite.tasks.create(title="after").title == "after"
    assert titles(sqlite) == ["after"]


class Interrupter:
    """Raises KeyboardInterrupt in the write path at the n-th moment at which CPython looks for signals.

    These are the beginning of a function and the end of a call into C; a profile function is called at both.
    """

    FILES = ("queue.py", "turnstile.py", "transaction.py", "blocking.py")

    def __init__(self, at: int) -> None:
        self.at = at
        self.line = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "c_return") or frame.f_code.co_name == "__del__":
            # Python itself swallows what is raised while an object is deleted.
            return
        if frame.f_code.co_filename.endswith(self.FILES):
            self.at -= 1
            if self.at == 0:
                self.line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt

    def run(self, work: Any) -> bool:
        """Do the work; tell whether the interrupt came before its end."""
        sys.setprofile(self)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


def _write(store: Store) -> None:
    store.tasks.create(title="x")


def _fail(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        probe(store).create("x", fail)


def _transaction(store: Store) -> None:
    with store.transaction() as tx:
        tx.tasks.create(title="x")


@pytest.mark.parametrize("work", [_write, _fail, _transaction])
def test_an_interrupt_at_any_moment_leaves_the_queue_usable(path: Path, work: Any) -> None:
    with open_file(path, lock_timeout=0.5) as store, open_file(path, lock_timeout=0.5) as other:
        work(store)
        at = 1
        while True:
            interrupter = Interrupter(at)
            if not interrupter.run(lambda: work(store)):
                break
            try:
                # Somebody else must not wait for what the interrupted call has left.
                with threads([lambda: other.tasks.create(title="after")]) as outcomes:
                    pass
                assert outcomes[0].title == "after"
            except Exception as error:
                raise AssertionError(f"after an interrupt at {interrupter.line}") from error
            at += 1
    assert at > 30
    with contextlib.closing(sqlite3.connect(path)) as stranger:
        stranger.execute("PRAGMA busy_timeout = 0")
        stranger.execute("BEGIN IMMEDIATE")


def test_interrupts_at_random_moments_lose_nothing_that_was_acknowledged(path: Path) -> None:
    program = PROGRAM_OF_INTERRUPTS.format(path=path, enough=INTERRUPTS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    # An interrupt within a callback of a weak reference goes no further: Python says so and goes on.
    said = re.sub(r"Exception ignored in: .*?\nKeyboardInterrupt: *\n", "", done.stderr, flags=re.DOTALL)
    assert (done.returncode, said) == (0, "")
    acknowledged, interrupts = (int(word) for word in done.stdout.split())
    assert interrupts > INTERRUPTS // 5
    with open_file(path) as store:
        assert store.tasks.count(task_type="other") == 2 * 150
        assert acknowledged <= store.tasks.count(task_type="main") <= acknowledged + interrupts


INTERRUPTS = int(os.environ.get("AGENTOS_STORE_INTERRUPTS", "40"))

PROGRAM_OF_INTERRUPTS = """
import signal, threading, time
from agentos_store import Store

store = Store.open("sqlite:///{path}")
def write():
    for _ in range(150):
        store.tasks.create(title="x", task_type="other")
others = [threading.Thread(target=write) for _ in range(2)]
for each in others:
    each.start()
acknowledged = interrupts = 0
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
until = time.monotonic() + 30
while interrupts < {enough} and time.monotonic() < until:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.00005 * interrupts)
        for _ in range(20):
            store.tasks.create(title="x", task_type="main")
            acknowledged += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
for each in others:
    each.join()
store.close()
print(acknowledged, interrupts)
"""


def test_a_signal_whose_handler_returns_ends_no_wait(sqlite: Store) -> None:
    def send() -> None:
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)

    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with threads([send]):
            for _ in range(50):
                sqlite.tasks.create(title="x")
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert sqlite.tasks.count() == 50
