"""What a fork does to open databases: a child uses none of the connections and locks that it inherited."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something with connections that must not be used on both sides of a fork."""

    def before_fork(self) -> None:
        """Prepare in the parent."""

    def after_fork(self) -> None:
        """Start afresh in the child."""


_all: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(database: Forkable) -> None:
    """Tell the database of every fork from now on."""
    _all.add(database)


def _before() -> None:
    for database in list(_all):
        database.before_fork()


def _after() -> None:
    for database in list(_all):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after)
