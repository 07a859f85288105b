"""The session: one transaction on one connection, as a repository's body sees it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agentos_store.engine.statement import Prepared, Statement, build_model, insert_into
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import UsageError
from agentos_store.types import new_ulid, now

if TYPE_CHECKING:
    from agentos_store.base import Base
    from agentos_store.engine.capabilities import Capabilities

M = TypeVar("M")
V = TypeVar("V")
B = TypeVar("B", bound="Base")


class Connection(Protocol):
    """What a dialect's room gives a session: prepared statements in, rows out, faults as the store's errors."""

    @property
    def capabilities(self) -> Capabilities:
        """What the database can do."""

    @property
    def max_payload(self) -> int:
        """Bytes, in UTF-8, that one value may have."""

    def prepared(self, statement: Statement[M]) -> Prepared[M]:
        """Return the statement as it is compiled for this database."""

    def execute(self, prepared: Prepared[Any], values: list[object]) -> tuple[list[Any], int]:
        """Execute and return the rows and the number of rows that were found or changed."""

    def execute_many(self, prepared: Prepared[Any], values: Sequence[Sequence[object]]) -> int:
        """Execute once for each list of values; return the number of rows that were changed."""

    def stream(self, prepared: Prepared[Any], values: list[object]) -> Iterator[Any]:
        """Execute and yield each row as it is read."""

    def copy(self, table: str, columns: Sequence[str], chunks: Iterable[str], *, null: str) -> int:
        """Stream rows in; only asked of a database that can copy."""

    def begin(self) -> None:
        """Begin a transaction; only asked of a database where statements are sent without one."""


class Call:
    """What stays the same when one call is tried again: the keys and the times that its body draws."""

    __slots__ = ("_drawn", "announced", "in_doubt", "pool_wait", "queue_wait", "retries")

    def __init__(self) -> None:
        self.announced = False
        """Whether others wait for what this call commits."""
        self.in_doubt = False
        """Whether the connection was cut in an earlier try when that may have been committed."""
        self.pool_wait = 0.0
        """Seconds for which it waited for a connection, in all its tries."""
        self.queue_wait = 0.0
        """Seconds for which it waited for its turn to write."""
        self.retries = 0
        """Tries after the first one."""
        self._drawn: list[Any] = []

    def draw(self, position: int, make: Any) -> Any:
        """Return what the first try drew at this position, or draw it now."""
        if position == len(self._drawn):
            self._drawn.append(make())
        return self._drawn[position]


class Session:
    """One transaction on one connection.

    Statements are prepared once for each database; rows come back as detached models. A value that the store refuses
    raises InvalidValueError before anything is sent.
    """

    __slots__ = ("_call", "_connection", "_position", "_single", "capabilities", "max_payload", "read_only", "wrote")

    def __init__(self, connection: Connection, call: Call, *, read_only: bool = False, single: bool = False) -> None:
        self._connection = connection
        self._call = call
        self._position = 0
        self._single = single
        self.capabilities = connection.capabilities
        """What this database can do."""
        self.max_payload = connection.max_payload
        """Bytes, in UTF-8, that one value may have."""
        self.read_only = read_only
        self.wrote = False
        """Whether a statement of this session has changed a row."""

    @property
    def in_transaction(self) -> bool:
        """Whether several statements commit together; else each that writes commits by itself."""
        return not self._single

    def announce(self) -> None:
        """Wake those who wait for news, here and in other processes, once this is committed."""
        self._call.announced = True

    @property
    def repeated(self) -> bool:
        """Whether an earlier try of the same call may have been committed; one that was surely rolled back is none."""
        return self._call.in_doubt

    def new_ulid(self) -> str:
        """Return a new key, the same one when the call is tried again."""
        return str(self._draw(new_ulid))

    def now(self) -> dt.datetime:
        """Return the time in UTC, the same one when the call is tried again; no two calls in a process get the same."""
        time: dt.datetime = self._draw(now)
        return time

    def all(self, statement: Statement[M], values: Mapping[str, object] = {}) -> list[M]:
        """Execute and return every row."""
        prepared, rows, _ = self._execute(statement, values)
        return prepared.build_all(rows)

    def up_to(self, limit: int, statement: Statement[M], values: Mapping[str, object] = {}) -> tuple[list[M], bool]:
        """Execute and return so many rows at most, and whether there are more; of these nothing is made."""
        prepared, rows, _ = self._execute(statement, values)
        return prepared.build_all(rows[:limit]), len(rows) > limit

    def first(self, statement: Statement[M], values: Mapping[str, object] = {}) -> M | None:
        """Execute and return the first row, or None."""
        prepared, rows, _ = self._execute(statement, values)
        return prepared.build(rows[0]) if rows else None

    def execute(self, statement: Statement[Any], values: Mapping[str, object] = {}) -> int:
        """Execute and return how many rows were changed."""
        return self._execute(statement, values)[2]

    def execute_many(self, statement: Statement[Any], values: Sequence[Mapping[str, object]]) -> int:
        """Execute once for each set of values, in as few round trips as the driver can; return the changed rows."""
        if not values:
            return 0
        prepared = self._connection.prepared(statement)
        return self._execute_many(prepared, prepared.encode_many(values, self.max_payload))

    def execute_columns(self, statement: Statement[Any], count: int, values: Mapping[str, Sequence[object]]) -> int:
        """Do what ``execute_many`` does for so many sets of values, of which there is one, given as columns."""
        prepared = self._connection.prepared(statement)
        return self._execute_many(prepared, prepared.encode_columns(count, values, self.max_payload))

    def _execute_many(self, prepared: Prepared[Any], values: Sequence[Sequence[object]]) -> int:
        self._admit(prepared)
        count = self._connection.execute_many(prepared, values)
        self.wrote = self.wrote or count > 0
        return count

    def stream(self, statement: Statement[M], values: Mapping[str, object] = {}) -> Iterator[M]:
        """Execute a query and yield each row as it is read, however many they are; until the last one nothing else.

        The rows are read in the transaction of this session, so it has to be one that is still open then.
        """
        prepared = self._connection.prepared(statement)
        if prepared.writes:
            raise UsageError("only what is read can be streamed")
        return map(prepared.build, self._connection.stream(prepared, prepared.encode(values, self.max_payload)))

    def copy(self, model: type[B], columns: Sequence[str], chunks: Iterable[str], *, null: str = "") -> int:
        """Stream rows in where the database can copy; return their number.

        The rows are encoded already, in COPY's text format: a line for each, its fields divided by tabs, a backslash
        before each backslash, and ``null`` for NULL. While one chunk is made the database works on the one before; an
        error between two of them leaves nothing behind.
        """
        table = model.table().name
        if self.read_only or (self._single and self.wrote):
            raise UsageError(f"there can be no rows written to {table} here")
        count = self._connection.copy(table, columns, chunks, null=null)
        self.wrote = self.wrote or count > 0
        return count

    def insert(self, model: type[B], values: Mapping[str, object]) -> B:
        """Insert one row and return it; columns without a value get NULL, an identity its number.

        Raises AlreadyExistsError for a key that is taken and NotFoundError for a parent that does not exist.
        """
        statement, identity = _insertion(model)
        row = dict.fromkeys(model.table().columns.keys()) | dict(values)
        try:
            if identity is None:
                self.execute(statement, row)
            else:
                (row[identity],) = self.all(statement, row)[0]
        except IntegrityViolation as violation:
            raise explain(violation, model, row, self) from violation
        return build_model(model, row)

    def _execute(self, statement: Statement[M], values: Mapping[str, object]) -> tuple[Prepared[M], list[Any], int]:
        connection = self._connection
        prepared = connection.prepared(statement)
        if prepared.writes:
            self._admit(prepared)
        rows, count = connection.execute(prepared, prepared.encode(values, self.max_payload))
        if prepared.writes and count:
            self.wrote = True
        return prepared, rows, count

    def _admit(self, prepared: Prepared[Any]) -> None:
        if self.read_only:
            raise UsageError("this transaction only reads; open it without read_only to write")
        if self._single and self.wrote:
            # Without a transaction around them two writes could be torn apart.
            raise UsageError(f"an operation declared as one statement sent a second one: {prepared.text[:80]}")

    def begin(self) -> None:
        """Begin a transaction where there is none; what runs the body commits it.

        For a body that mostly needs one statement, and finds out that it takes several. What was read before may have
        changed meanwhile.
        """
        if self._single:
            if self.read_only or self.wrote:
                raise UsageError("a transaction can only begin before anything is written, where writing is allowed")
            # From here on, for a connection that is cut while it begins has stored nothing either.
            self._single = False
            self._connection.begin()

    def settle(self) -> None:
        """Say that what was written so far is whole by itself: without a transaction, another statement may follow."""
        if self._single:
            self.wrote = False

    def keep(self, value: V) -> V:
        """Return what the first try of this call kept here: this value, when it is the first."""
        kept: V = self._draw(lambda: value)
        return kept

    def _draw(self, make: Any) -> Any:
        value = self._call.draw(self._position, make)
        self._position += 1
        return value


_insertions: dict[type[Any], tuple[Statement[Any], str | None]] = {}


def _insertion(model: type[Base]) -> tuple[Statement[Any], str | None]:
    """Return the INSERT of one whole row, and the identity column whose number it returns."""
    found = _insertions.get(model)
    if found is None:
        identity = next((c.name for c in model.table().columns if c.identity is not None), None)
        found = (Statement(insert_into(model, returning=[identity] if identity else [])), identity)
        _insertions[model] = found
    return found
