"""Health: whether an open database can be worked with at this moment, told in a bounded time."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from agentos_store.engine.version import HEAD
from agentos_store.engine.vitals import PoolState, Vitals
from agentos_store.errors import StoreError
from agentos_store.migrate.revisions import check_revision
from agentos_store.operations.aside import Aside, check_timeout

TIMEOUT = 2.0
"""Seconds; the probes of most platforms wait no longer than that."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a database can be worked with."""

    ok: bool
    """Whether there is no problem at all."""
    connected: bool
    latency: float | None
    """Seconds of one small query on a connection that was there; None while nothing came back."""
    revision: str | None
    head: str
    """The revision that this code is written for."""
    schema_ok: bool | None
    """Whether the schema is at that revision; None when that could not be found out."""
    writable: bool | None
    """Whether a write was, or would be, taken; None when that could not be found out."""
    pool: PoolState | None
    """None when there is no open database."""
    problems: tuple[str, ...]
    """What is wrong, each in a sentence for people."""
    location: str
    checked_at: dt.datetime


class Checkup:
    """Looks at one database, in a thread that is left behind when it hangs."""

    def __init__(
        self,
        location: str,
        examine: Callable[[Vitals], None],
        pool: Callable[[], PoolState | None] = lambda: None,
    ) -> None:
        # One of its own, for other questions may wait for locks of tables that are none of its business.
        self._aside = Aside()
        self._location = location
        self._examine = examine
        self._pool = pool
        self._looking: Vitals | None = None
        """What the look that is on its way has found."""

    def check(self, seconds: float) -> Health:
        """Look, for so long at most."""
        limit = check_timeout(seconds)
        return self._tell(self._aside.ask(self._look, limit), limit)

    async def check_async(self, seconds: float) -> Health:
        """Do the same without blocking the event loop."""
        limit = check_timeout(seconds)
        return self._tell(await self._aside.ask_async(self._look, limit), limit)

    def closed(self) -> Health:
        """Return the health of a database that was closed."""
        return self._health(Vitals(problems=["the store is closed"]))

    def _look(self) -> Vitals:
        vitals = self._looking = Vitals()
        try:
            self._examine(vitals)
            if vitals.connected:
                check_revision(vitals.revision, where=self._location)
        except StoreError as error:
            vitals.problems.append(str(error))
        except Exception as error:  # noqa: BLE001  a probe has to be told, and the error's own text may hold anything
            vitals.problems.append(f"{vitals.doing} failed ({type(error).__name__})")
        finally:
            self._looking = None
        return vitals

    def _tell(self, answer: Future[Vitals] | None, limit: float) -> Health:
        if answer is not None:
            error = answer.exception()
            return self._health(answer.result() if error is None else Vitals(problems=[str(error)]))
        found = self._looking or Vitals()
        asked = self._aside.waiting_for() or limit
        late = f"no answer within {limit:g} s: {found.doing} has taken {max(asked, limit):.1f} s"
        # A copy, for the thread may find more.
        return self._health(dataclasses.replace(found, problems=[*found.problems, late]))

    def _health(self, vitals: Vitals) -> Health:
        return Health(
            ok=not vitals.problems,
            connected=vitals.connected,
            latency=vitals.latency,
            revision=vitals.revision,
            head=HEAD,
            schema_ok=vitals.schema_ok,
            writable=vitals.writable,
            pool=self._pool(),
            problems=tuple(vitals.problems),
            location=self._location,
            checked_at=dt.datetime.now(dt.UTC),
        )
