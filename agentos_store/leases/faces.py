"""Methods of a repository that are no single body: each is written for both faces, and chosen by the instance's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from agentos_store.operation import Awaiting, Blocking, Repository

P = ParamSpec("P")
B = TypeVar("B")
A = TypeVar("A")


class faces(Generic[P, B, A]):  # noqa: N801  used like the decorators of bodies
    """A method made of several operations, with something between them that must not hold a connection."""

    def __init__(self, blocking: Callable[Concatenate[Any, P], B], awaiting: Callable[Concatenate[Any, P], A]) -> None:
        self._blocking = blocking
        self._awaiting = awaiting
        self.__doc__ = blocking.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> faces[P, B, A]: ...
    @overload
    def __get__(self, instance: Repository[Blocking], owner: type) -> Callable[P, B]: ...
    @overload
    def __get__(self, instance: Repository[Awaiting], owner: type) -> Callable[P, A]: ...
    def __get__(self, instance: Repository[Any] | None, owner: type) -> Any:
        if instance is None:
            return self
        chosen: Any = self._awaiting if instance._asynchronous else self._blocking  # noqa: SLF001  one mechanism
        return functools.update_wrapper(functools.partial(chosen, instance), chosen)
