"""What every dialect's room offers to the floors above."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import URL

from agentos_store.engine.bell import Bell
from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.meter import Meter
from agentos_store.engine.retry import RetryPolicy
from agentos_store.engine.session import Session
from agentos_store.engine.vitals import PoolState, ServerState, Vitals
from agentos_store.operation import Access

Body = Callable[[Session], Any]


class OpenTransaction(Protocol):
    """An explicit transaction: bodies run in it one after another, from any thread."""

    def run(self, access: Access, body: Body) -> Any:
        """Run a body in the transaction; one that fails leaves nothing behind, and the transaction goes on."""

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, and give the connection back."""


class Runs(Protocol):
    """What runs bodies, each in a transaction of its own."""

    def run(self, access: Access, what: str, body: Body, *, repeatable: bool, may_lag: bool = False) -> Any:
        """Run a body in a transaction of its own, with the retries that the settings allow.

        One that ``may_lag`` may be answered by a replica, which has what this store wrote.
        """


class Backend(Runs, Protocol):
    """One open database."""

    @property
    def capabilities(self) -> Capabilities:
        """What the database can do."""

    @property
    def policy(self) -> RetryPolicy:
        """How passing faults are tried again."""

    @property
    def bell(self) -> Bell:
        """Who waits for the news of the database; another one after a fork."""

    @property
    def url(self) -> URL:
        """Where the database is."""

    @property
    def schema(self) -> str | None:
        """The PostgreSQL schema; None on SQLite."""

    @property
    def settings(self) -> Any:
        """The settings that it was opened with."""

    def begin(self, *, read_only: bool) -> OpenTransaction:
        """Begin an explicit transaction."""

    @property
    def meter(self) -> Meter:
        """What the database has done; another one after a fork."""

    def pool_state(self) -> PoolState:
        """Return how the connections are, and who waits; it asks nobody and waits for nothing."""

    def examine(self, vitals: Vitals) -> None:
        """Look whether the database can be worked with, and tell step by step; an error says which step failed."""

    def server_state(self) -> ServerState | None:
        """Return how the server stands; None where there is none."""

    def revision(self) -> str | None:
        """Return the revision that the database is at; None when it has none."""

    def is_blank(self) -> bool:
        """Tell whether the database may be initialised unasked."""

    def describe(self) -> str:
        """Return where the database is, for people; no password is in it."""

    def size(self) -> int:
        """Return the bytes that the database takes on disk."""

    def raw_connection(self) -> AbstractContextManager[Any]:
        """Lend a reading driver connection, for questions to the system catalogue."""

    def close(self) -> None:
        """Let running operations end, then give back what the database holds of us."""
