"""An explicit transaction on one connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg.pq import TransactionStatus

from agentos_store.engine.bell import Bell
from agentos_store.engine.door import Door
from agentos_store.engine.postgresql.connection import PostgreSQLConnection
from agentos_store.engine.session import Call, Session
from agentos_store.errors import TransientError, UnavailableError
from agentos_store.operation import Access, run_body


class PostgreSQLTransaction:
    """An explicit transaction on one connection."""

    def __init__(
        self,
        connection: PostgreSQLConnection,
        door: Door,
        bell: Bell,
        on_written: Callable[[], object],
        *,
        read_only: bool,
    ) -> None:
        self._connection = connection
        self._door = door
        self._bell = bell
        self._on_written = on_written
        self._announced = False
        self._read_only = read_only
        self._savepoint = False

    def run(self, access: Access, body: Callable[[Session], Any]) -> Any:
        """Run a body; one that writes gets a savepoint, so that its failure leaves the transaction usable."""
        connection = self._connection
        call = Call()
        session = Session(connection, call, read_only=self._read_only)
        try:
            result = self._run(access, body, session)
        except TransientError as error:
            # Whatever happened to the connection, the COMMIT was not sent.
            error.outcome_unknown = False
            raise
        self._announced = self._announced or call.announced
        return result

    def _run(self, access: Access, body: Callable[[Session], Any], session: Session) -> Any:
        connection = self._connection
        if access.reads or self._read_only:
            return run_body(body, session)
        # The last operation's savepoint is let go in the round trip that sets this one's.
        connection.command(
            "RELEASE SAVEPOINT operation; SAVEPOINT operation" if self._savepoint else "SAVEPOINT operation"
        )
        self._savepoint = True
        try:
            return run_body(body, session)
        except BaseException:
            if connection.raw.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.command("ROLLBACK TO SAVEPOINT operation")
            raise

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, and give the connection back."""
        try:
            if commit:
                self._connection.command("COMMIT")
                if self._connection.cursor.statusmessage != "COMMIT":
                    # The server answers COMMIT with ROLLBACK when a statement had failed outside a savepoint.
                    raise UnavailableError("a read had failed, so the transaction was rolled back")
        finally:
            if commit and not self._read_only:
                self._on_written()
            try:
                self._connection.give_back()
            finally:
                self._door.__exit__()
        if commit and self._announced:
            self._bell.ring()
