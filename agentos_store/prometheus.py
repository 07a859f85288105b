"""A collector for prometheus_client, of the extra ``prometheus``.

::

    from prometheus_client import REGISTRY, start_http_server
    from agentos_store.prometheus import StoreCollector

    REGISTRY.register(StoreCollector(store))
    start_http_server(9464)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from agentos_store.engine.meter import Kind
from agentos_store.engine.vitals import ServerState
from agentos_store.errors import InvalidValueError, UsageError
from agentos_store.operations.aside import check_timeout
from agentos_store.operations.metrics import Gauges, Metrics, Storage

if TYPE_CHECKING:
    from agentos_store.store.asynchronous import AsyncStore
    from agentos_store.store.blocking import Store

log = logging.getLogger("agentos_store.prometheus")

TIMEOUT = 1.0
"""Seconds that a scrape waits for databases; the counters are there without them."""

LEAST = 0.01
"""Seconds that each of several databases has, however many there are."""

OWN_LABELS = frozenset({"kind", "le", "operation", "state"})

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, each of them one of the meter's own."""

Found = Sequence[tuple[tuple[str, ...], Metrics]]
"""The values of the labels of each store, and what it has counted."""


class StoreCollector:
    """The metrics of open stores, asked at each scrape.

    A scrape raises nothing and waits for the databases no longer than ``timeout`` seconds; while one does not answer,
    its ``agentos_store_up`` is 0, and what only it knows is left out. ``labels`` stand on every sample of the store, so
    that several can be told apart, which ``add`` puts into the same collector.
    """

    def __init__(
        self, store: Store | AsyncStore, *, labels: Mapping[str, str] | None = None, timeout: float = TIMEOUT
    ) -> None:
        try:
            from prometheus_client import core
        except ImportError:
            raise UsageError("prometheus_client is not installed: pip install 'agentos-store[prometheus]'") from None
        self._core: Any = core
        self._names = tuple(labels or ())
        for name in self._names:
            if name in OWN_LABELS or not re.fullmatch(r"(?!__)[A-Za-z_][A-Za-z0-9_]*", name):
                raise InvalidValueError("labels", f"{name!r} is one of the collector's own, or no name of a label")
        self._timeout = check_timeout(timeout)
        self._stores: tuple[tuple[tuple[str, ...], Gauges], ...] = ()
        self.add(store, labels=labels)

    def add(self, store: Store | AsyncStore, *, labels: Mapping[str, str] | None = None) -> None:
        """Collect another store too, under labels of the same names."""
        values = self._values(labels)
        for value in values:
            # It would fail each scrape, and with it whatever else is in the registry.
            if not isinstance(value, str) or value != value.encode(errors="replace").decode():
                raise InvalidValueError("labels", "a value must be text that UTF-8 can hold")
        if any(values == others for others, _ in self._stores):
            raise InvalidValueError("labels", "another store has the same")
        gauges = store._gauges  # noqa: SLF001  what both faces of the store have, and neither needs an event loop for
        self._stores = (*self._stores, (values, gauges))

    def remove(self, *, labels: Mapping[str, str] | None = None) -> None:
        """Collect the store with these labels no more: one that is closed for good, or opened again and to be added."""
        values = self._values(labels)
        rest = tuple(each for each in self._stores if each[0] != values)
        if len(rest) == len(self._stores):
            raise InvalidValueError("labels", "no store has these")
        self._stores = rest

    def _values(self, labels: Mapping[str, str] | None) -> tuple[str, ...]:
        given = labels or {}
        if set(given) != set(self._names):
            raise InvalidValueError("labels", f"must be those of the first store: {', '.join(self._names) or 'none'}")
        return tuple(given[name] for name in self._names)

    def describe(self) -> Iterable[Any]:
        """Return nothing: a registry would collect at once to learn the names."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of this moment."""
        found = self._ask()
        yield self._up(found)
        yield from self._counters(found)
        yield self._durations(found)
        yield self._connections(found)
        yield from self._gauges(found)

    def _ask(self) -> Found:
        """Ask each store for its share of the time; what is left is for those that have not answered by then."""
        end = monotonic() + self._timeout
        stores, found = self._stores, dict[tuple[str, ...], Metrics]()
        asked = stores
        while asked:
            for number, (values, gauges) in enumerate(asked):
                share = (end - monotonic()) / (len(asked) - number)
                try:
                    found[values] = gauges.collect(max(LEAST, share))
                except Exception as error:  # noqa: BLE001  one store must not fail the scrape of all in the registry
                    log.warning("no metrics could be collected (%s)", type(error).__name__)
            late = [(values, gauges) for values, gauges in asked if values in found and found[values].storage is None]
            # One that has failed, rather than being late, is not asked again.
            asked = tuple(late) if len(late) < len(asked) and end - monotonic() > LEAST else ()
        return [(values, found[values]) for values, _ in stores if values in found]

    def _up(self, found: Found) -> Any:
        answered = {values for values, metrics in found if metrics.storage is not None}
        family = self._family("Gauge", "up", "Whether the database answered.")
        for values, _ in self._stores:
            family.add_metric(values, int(values in answered))
        return family

    def _counters(self, found: Found) -> Iterator[Any]:
        for name, help_, attribute in _BY_OPERATION:
            family = self._family("Counter", name, help_, "kind", "operation")
            for values, metrics in found:
                for operation, counted in metrics.operations.items():
                    family.add_metric([*values, counted.kind.value, operation], getattr(counted, attribute))
            yield family
        for name, help_, attribute in _TOTALS:
            family = self._family("Counter", name, help_)
            for values, metrics in found:
                family.add_metric(values, getattr(metrics, attribute))
            yield family

    def _durations(self, found: Found) -> Any:
        help_ = "How long calls took, waiting and further tries included."
        family = self._family("Histogram", "operation_duration_seconds", help_, "kind")
        for values, metrics in found:
            for kind in Kind:
                latency = metrics.latency[kind]
                buckets = [(repr(bound), latency.within(bound)) for bound in BUCKETS] + [("+Inf", latency.count)]
                family.add_metric([*values, kind.value], buckets=buckets, sum_value=latency.total)
        return family

    def _connections(self, found: Found) -> Any:
        family = self._family("Gauge", "pool_connections", "Connections of the pool.", "state")
        for values, metrics in found:
            for state in ("in_use", "idle"):
                number = getattr(metrics.pool, state)
                if number is not None:
                    family.add_metric([*values, state], number)
        return family

    def _gauges(self, found: Found) -> Iterator[Any]:
        for name, help_, ask in _GAUGES:
            family = self._family("Gauge", name, help_)
            for values, metrics in found:
                number = ask(metrics)
                if number is not None:
                    family.add_metric(values, number)
            if family.samples:
                yield family

    def _family(self, kind: str, name: str, help_: str, *labels: str) -> Any:
        make = getattr(self._core, f"{kind}MetricFamily")
        return make(f"agentos_store_{name}", help_, labels=[*self._names, *labels])


_BY_OPERATION = (
    ("operations", "Calls that have ended.", "count"),
    ("operation_errors", "Calls that raised, be it only that a row does not exist.", "errors"),
    ("operation_faults", "Calls that the database could not do.", "faults"),
    ("operation_retries", "Further tries after passing faults.", "retries"),
)
_TOTALS = (
    ("slow_operations", "Calls that took longer than DATABASE_SLOW_OPERATION.", "slow"),
    (
        "lock_waits",
        "Calls that waited for longer than 100 ms for a turn to write, or for a lock in vain.",
        "lock_waits",
    ),
)


Asked = Callable[[Metrics], float | None]


def _of_storage(ask: Callable[[Storage], float | None]) -> Asked:
    return lambda metrics: None if metrics.storage is None else ask(metrics.storage)


def _of_server(ask: Callable[[ServerState], float]) -> Asked:
    return _of_storage(lambda storage: None if storage.server is None else ask(storage.server))


_GAUGES: Sequence[tuple[str, str, Asked]] = (
    ("pool_connections_max", "Connections that the pool may open.", lambda found: found.pool.limit),
    ("pool_waiting", "Callers that are asking for a connection.", lambda found: found.pool.waiting),
    (
        "pool_longest_wait_seconds",
        "The longest wait for a connection since the opening.",
        lambda found: found.pool.longest_wait,
    ),
    ("write_queue_length", "Writers that wait for their turn on SQLite.", lambda found: found.pool.queue),
    ("write_queue_wait_seconds", "How long the first of them has waited.", lambda found: found.pool.queue_wait),
    (
        "write_queue_longest_wait_seconds",
        "The longest wait for a turn since the opening.",
        lambda found: found.pool.longest_queue_wait,
    ),
    ("agents", "Agents, an estimate above 100,000.", _of_storage(lambda storage: storage.agents.rows)),
    ("messages", "Messages, an estimate above 100,000.", _of_storage(lambda storage: storage.messages.rows)),
    ("size_bytes", "What the database takes on disk.", _of_storage(lambda storage: storage.size_bytes)),
    ("server_connections", "Connections to the server, of everybody.", _of_server(lambda server: server.connections)),
    ("server_connections_max", "Connections that the server takes.", _of_server(lambda server: server.max_connections)),
    (
        "server_lock_waits",
        "Statements older than 100 ms that wait for a lock.",
        _of_server(lambda server: server.lock_waits),
    ),
)
