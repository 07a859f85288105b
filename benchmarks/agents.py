"""What one caller does with agents and tool calls, over and over, beside the driver alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, LiteralString, Protocol, Self

from agentos_store import Store
from agentos_store.conversations.tool_call_dangling import ADD, addable
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.operation import Blocking, F, Repository, writes
from benchmarks import rows
from benchmarks.drivers import PostgreSQLDriver, SQLiteDriver
from benchmarks.measure import Contest, Contestant, NotHonestError
from benchmarks.places import Place
from benchmarks.works import OURS, RAW

AGENT = "agent-1"
AGENTS = 200
CALLS = 100_000
WAITING = 1_000
PAGE = 100
INPUT = {"command": "ls -la", "cwd": "/srv/code"}
STATES = ("busy", "idle")


class Worker(Protocol):
    """Whoever records calls and saves agents."""

    def record(self, name: str) -> object:
        """Record a call that waits."""

    def execute(self, name: str) -> object:
        """Let a call be executed."""

    def save(self, state: str, index: int) -> object:
        """Save the agent."""

    def approvals(self) -> list[str]:
        """Return the calls that wait for approval, the oldest first."""

    def close(self) -> None:
        """Give back what is held."""


class Ours:
    """The library, called as its users call it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a database."""
        return cls(Store.open(url))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def record(self, name: str) -> object:
        """Record a call that waits."""
        return self.store.tool_calls.record(agent_id=AGENT, tool_call_id=name, tool_name="bash_run", input=INPUT)

    def execute(self, name: str) -> object:
        """Let a call be executed."""
        return self.store.tool_calls.update_state(name, "executing", agent_id=AGENT)

    def save(self, state: str, index: int) -> object:
        """Save the agent."""
        return self.store.agents.save(AGENT, state=state, last_sfp_index=index)

    def approvals(self) -> list[str]:
        """Return the calls that wait for approval."""
        return [call.id for call in self.store.tool_calls.pending_approvals(limit=PAGE)]


def _trail(state: str, at: str) -> str:
    return rows.compact([{"state": state, "at": at}])


RECORD = (
    "INSERT INTO tool_call_records (id, agent_id, tool_call_id, ordinal, tool_name, state, input, has_output,"
    " audit_trail, created_at, updated_at) VALUES ({values})"
)
EXECUTE = (
    "UPDATE tool_call_records SET state = 'executing', started_at = {at}, updated_at = {at}, audit_trail = {trail}"
    " WHERE agent_id = {agent} AND tool_call_id = {name} AND state = 'pending' RETURNING *"
)
SAVE = (
    "INSERT INTO agents (agent_id, state, lineage, last_sfp_index, stats, metadata, version, created_at, updated_at)"
    " VALUES ({values}) ON CONFLICT (agent_id) DO UPDATE SET state = excluded.state,"
    " last_sfp_index = excluded.last_sfp_index, version = agents.version + 1, updated_at = excluded.updated_at,"
    " deleted_at = NULL RETURNING *"
)
APPROVALS = (
    "SELECT c.* FROM tool_call_records c WHERE c.state = 'approval_required' AND"
    " (SELECT deleted_at FROM agents WHERE agent_id = c.agent_id) IS NULL ORDER BY c.created_at, c.id LIMIT {limit}"
)


def _values(place: str, count: int, casts: dict[int, str] | None = None) -> str:
    return ", ".join(place + (casts or {}).get(i, "") for i in range(count))


class RawSQLite(SQLiteDriver):
    """One connection of ``sqlite3``."""

    RECORD = RECORD.format(values=_values("?", 11))
    EXECUTE = EXECUTE.format(at="?1", trail="json_insert(audit_trail, '$[#]', json(?2))", agent="?3", name="?4")
    SAVE = SAVE.format(values=_values("?", 9))
    APPROVALS = APPROVALS.format(limit="?")

    def record(self, name: str) -> object:
        """Record a call that waits."""
        at = rows.written(rows.now())
        values = (name, AGENT, name, 0, "bash_run", "pending", rows.compact(INPUT), 0, _trail("pending", at), at, at)
        with self._transaction():
            return self.connection.execute(self.RECORD, values)

    def execute(self, name: str) -> object:
        """Let a call be executed."""
        at = rows.written(rows.now())
        step = rows.compact({"state": "executing", "at": at})
        with self._transaction():
            return self.connection.execute(self.EXECUTE, (at, step, AGENT, name)).fetchone()

    def save(self, state: str, index: int) -> object:
        """Save the agent."""
        at = rows.written(rows.now())
        with self._transaction():
            return self.connection.execute(self.SAVE, (AGENT, state, "[]", index, "{}", "{}", 1, at, at)).fetchone()

    def approvals(self) -> list[str]:
        """Return the calls that wait for approval, their JSON read."""
        return _read(self.connection.execute(self.APPROVALS, (PAGE,)))


class RawPostgreSQL(PostgreSQLDriver):
    """One connection of psycopg."""

    RECORD: LiteralString = RECORD.format(values=_values("%s", 11, {6: "::json", 8: "::jsonb"}))
    EXECUTE: LiteralString = EXECUTE.format(
        at="%(at)s", trail="audit_trail || %(trail)s::jsonb", agent="%(agent)s", name="%(name)s"
    )
    SAVE: LiteralString = SAVE.format(values=_values("%s", 9, {2: "::jsonb", 4: "::jsonb", 5: "::jsonb"}))
    APPROVALS: LiteralString = APPROVALS.format(limit="%s")

    def record(self, name: str) -> object:
        """Record a call that waits."""
        at = rows.now()
        trail = _trail("pending", rows.written(at))
        values = (name, AGENT, name, 0, "bash_run", "pending", rows.compact(INPUT), False, trail, at, at)
        return self._execute(self.RECORD, values)

    def execute(self, name: str) -> object:
        """Let a call be executed."""
        at = rows.now()
        step = rows.compact({"state": "executing", "at": rows.written(at)})
        return self._execute(self.EXECUTE, {"at": at, "trail": step, "agent": AGENT, "name": name}).fetchone()

    def save(self, state: str, index: int) -> object:
        """Save the agent."""
        at = rows.now()
        return self._execute(self.SAVE, (AGENT, state, "[]", index, "{}", "{}", 1, at, at)).fetchone()

    def approvals(self) -> list[str]:
        """Return the calls that wait for approval; the driver reads their JSON."""
        return [str(row[0]) for row in self._execute(self.APPROVALS, (PAGE,))]


def _read(cursor: Any) -> list[str]:
    names = [each[0] for each in cursor.description]
    places = [names.index(name) for name in ("input", "output", "approval", "audit_trail")]
    keys = []
    for row in cursor.fetchall():
        for place in places:
            if row[place] is not None:
                json.loads(row[place])
        keys.append(row[0])
    return keys


_WAYS: dict[str, dict[str, Callable[[str], Worker]]] = {
    "sqlite": {OURS: Ours.open, RAW: RawSQLite.open},
    "postgresql": {OURS: Ours.open, RAW: RawPostgreSQL.open},
}


class _Seeder(Repository[F]):
    """Adds many calls at once."""

    name = "seeder"

    @writes
    def add(self, session: Session, numbers: Sequence[int]) -> None:
        time = session.now()
        empty: dict[str, Any] = dict.fromkeys(ToolCallRecord.table().columns.keys())
        session.execute_many(
            ADD,
            [
                addable(
                    empty
                    | {
                        "id": f"call-{n:06}",
                        "agent_id": f"agent-{n % AGENTS}",
                        "tool_call_id": f"call-{n}",
                        "ordinal": 0,
                        "tool_name": f"tool-{n % 20}",
                        "state": "approval_required" if n % (CALLS // WAITING) == 0 else "completed",
                        "input": INPUT,
                        "has_output": False,
                        "approval": {"required": True} if n % (CALLS // WAITING) == 0 else None,
                        "audit_trail": [{"state": "pending"}],
                        "created_at": time,
                        "updated_at": time,
                    }
                )
                for n in numbers
            ],
        )


def _seeded(place: Place, *, calls: int = 0) -> str:
    url = place.database()
    with Store.open(url) as store:
        for n in range(AGENTS):
            store.agents.save(f"agent-{n}")
        seeder = store.bind(_Seeder[Blocking])
        for first in range(0, calls, 5_000):
            seeder.add(range(first, first + 5_000))
    place.settle(url)
    return url


@contextlib.contextmanager
def _workers(place: Place) -> Iterator[dict[str, Worker]]:
    """Give each contestant a database of its own."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(contextlib.closing(way(_seeded(place))))
            for name, way in _WAYS[place.name].items()
        }


@contextlib.contextmanager
def record(place: Place) -> Iterator[Contest]:
    """Record a tool call."""
    with _workers(place) as workers:
        contestants = [Contestant(name, _named(worker.record)) for name, worker in workers.items()]
        yield Contest("record a tool call", place.name, contestants)


def _named(call: Callable[[str], object]) -> Callable[[], object]:
    keys = rows.numbered_keys("T")
    return lambda: call(next(keys))


class _Executor:
    """Lets one call after the other be executed, each of which was recorded before."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._keys = rows.numbered_keys("T")
        self._ready: list[str] = []

    def prepare(self, number: int) -> None:
        """Record so many calls."""
        self._ready = [next(self._keys) for _ in range(number)]
        for key in self._ready:
            self._worker.record(key)

    def execute(self) -> None:
        """Take the step."""
        if self._worker.execute(self._ready.pop()) is None:
            raise NotHonestError("a call was not there to be executed")


@contextlib.contextmanager
def update(place: Place) -> Iterator[Contest]:
    """Take a step of a tool call, with its entry in the trail."""
    with _workers(place) as workers:
        contestants = []
        for name, worker in workers.items():
            executor = _Executor(worker)
            contestants.append(Contestant(name, executor.execute, prepare=executor.prepare))
        yield Contest("take a step of a tool call", place.name, contestants)


@contextlib.contextmanager
def save(place: Place) -> Iterator[Contest]:
    """Save an agent that is there."""
    with _workers(place) as workers:
        contestants = [Contestant(name, _saver(worker)) for name, worker in workers.items()]
        yield Contest("save an agent", place.name, contestants)


def _saver(worker: Worker) -> Callable[[], object]:
    count = iter(range(10**9))

    def call() -> object:
        number = next(count)
        return worker.save(STATES[number % 2], number)

    return call


@contextlib.contextmanager
def approvals(place: Place) -> Iterator[Contest]:
    """List the calls that wait for approval, among very many."""
    url = _seeded(place, calls=CALLS)
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(contextlib.closing(way(url))) for name, way in _WAYS[place.name].items()}
        found = {name: worker.approvals() for name, worker in workers.items()}
        if found[OURS] != found[RAW] or len(found[OURS]) != PAGE:
            raise NotHonestError("the calls that wait differ")
        contestants = [Contestant(name, partial(worker.approvals)) for name, worker in workers.items()]
        yield Contest(f"{PAGE} of {WAITING:,} approvals among {CALLS:,} calls", place.name, contestants)


WORKS = {"tool-record": record, "tool-step": update, "agent-save": save, "approvals": approvals}
"""By the name that the command line takes."""
