"""What a fork does to open databases: a child uses none of the connections and locks that it inherited."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol


class Forkable(Protocol):
    """Something with connections or threads that must not be used on both sides of a fork."""

    def before_fork(self) -> Callable[[], None] | None:
        """Prepare in the parent; what is returned is called there when the fork is done."""

    def after_fork(self) -> None:
        """Start afresh in the child."""


_all: weakref.WeakSet[Forkable] = weakref.WeakSet()
lock = threading.RLock()
"""Held during a fork, so that the child finds it free; also while a domain is imported, for Python's own lock of a
module that another thread is importing stays taken in the child for ever."""
_prepared: list[Forkable] = []
_afterwards: list[Callable[[], None]] = []


def register(database: Forkable) -> None:
    """Tell the database of every fork from now on."""
    with lock:
        _all.add(database)


def _before() -> None:
    lock.acquire()
    for database in list(_all):
        _prepared.append(database)
        afterwards = database.before_fork()
        if afterwards is not None:
            _afterwards.append(afterwards)


def _in_parent() -> None:
    for afterwards in _afterwards:
        afterwards()
    _end()


def _in_child() -> None:
    for database in _prepared:
        database.after_fork()
    _end()


def _end() -> None:
    _prepared.clear()
    _afterwards.clear()
    lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
