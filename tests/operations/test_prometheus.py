"""What is scraped is what was counted, in a form that Prometheus reads, whatever the database does."""

from __future__ import annotations

import asyncio
import builtins
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import prometheus_client.openmetrics.parser as openmetrics
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from agentos_store import AsyncStore, Store
from agentos_store.engine.meter import Kind
from agentos_store.errors import InvalidValueError, NotFoundError, UsageError
from agentos_store.operations.metrics import Metrics
from agentos_store.prometheus import BUCKETS, StoreCollector

# Their annotations are not complete.
WRITE: Any = generate_latest
PARSE: Any = text_string_to_metric_families
STRICT_WRITE: Any = generate_openmetrics
STRICT_PARSE: Any = openmetrics.text_string_to_metric_families


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


def scrape(*collectors: StoreCollector) -> dict[str, Metric]:
    """Return what a server would read, from the strict format too."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    strict = STRICT_PARSE(STRICT_WRITE(registry).decode())
    assert {family.name for family in strict} >= {"agentos_store_up", "agentos_store_operations"}
    return {family.name: family for family in PARSE(WRITE(registry).decode())}


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    (found,) = [
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix and sample.labels.items() >= labels.items()
    ]
    return float(found)


def test_what_is_scraped_is_what_was_counted(store: Store, backend: str) -> None:
    task = store.tasks.create(title="x")
    store.tasks.get(task.task_id)
    with pytest.raises(NotFoundError):
        store.tasks.get("nobody")
    found = scrape(StoreCollector(store, timeout=20))
    assert value(found["agentos_store_up"]) == 1
    labels = {"kind": "loads", "operation": "tasks.get"}
    assert value(found["agentos_store_operations"], "_total", **labels) == 2
    assert value(found["agentos_store_operation_errors"], "_total", **labels) == 1
    assert value(found["agentos_store_operation_faults"], "_total", **labels) == 0
    durations = found["agentos_store_operation_duration_seconds"]
    assert durations.type == "histogram"
    counts = [value(durations, "_bucket", kind="loads", le=str(bound)) for bound in (*BUCKETS, "+Inf")]
    assert counts == sorted(counts)
    assert counts[-1] == value(durations, "_count", kind="loads") == 2
    assert value(durations, "_sum", kind="loads") == pytest.approx(store.metrics().latency[Kind.LOADS].total)
    assert value(found["agentos_store_size_bytes"]) > 100_000
    assert value(found["agentos_store_messages"]) == 0
    assert value(found["agentos_store_pool_connections"], state="in_use") == 0
    assert ("agentos_store_server_connections" in found) == (backend == "postgresql")
    assert all(family.documentation for family in found.values())


def test_a_closed_store_is_down_and_its_counters_stay(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        store.tasks.create(title="x")
        collector = StoreCollector(store)
    found = scrape(collector)
    assert value(found["agentos_store_up"]) == 0
    assert value(found["agentos_store_operations"], "_total", operation="tasks.create") == 1
    assert "agentos_store_size_bytes" not in found


def test_a_store_that_fails_costs_only_itself(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(seconds: float) -> Any:
        raise ZeroDivisionError

    with Store.open(sqlite_url) as first, Store.open(sqlite_url) as second:
        collector = StoreCollector(first, labels={"store": "first"}, timeout=20)
        collector.add(second, labels={"store": "second"})
        monkeypatch.setattr(first._gauges, "collect", fail)
        found = scrape(collector)
        assert value(found["agentos_store_up"], store="first") == 0
        assert value(found["agentos_store_up"], store="second") == 1
        assert {sample.labels["store"] for sample in found["agentos_store_operations"].samples} == {"second"}
    assert "ZeroDivisionError" in caplog.text


def test_a_store_that_is_late_takes_no_time_from_the_others(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def late(seconds: float) -> Metrics:
        given.append(seconds)
        return dataclasses.replace(found, storage=None)

    with Store.open(sqlite_url) as first, Store.open(sqlite_url) as second:
        found = first.metrics()
        collector = StoreCollector(first, labels={"store": "first"}, timeout=2000)
        collector.add(second, labels={"store": "second"})
        monkeypatch.setattr(first._gauges, "collect", late)
        up = next(iter(collector.collect()))
    assert [(sample.labels["store"], sample.value) for sample in up.samples] == [("first", 0), ("second", 1)]
    assert [round(seconds, -3) for seconds in given] == [1000, 2000], "its share, and then what the other left"


def test_a_store_that_is_opened_again_takes_the_place_of_the_closed_one(sqlite_url: str) -> None:
    labels = {"tenant": "a"}
    with Store.open(sqlite_url) as store:
        collector = StoreCollector(store, labels=labels)
    with Store.open(sqlite_url) as store:
        collector.remove(labels=labels)
        with pytest.raises(InvalidValueError):
            collector.remove(labels=labels)
        assert next(iter(collector.collect())).samples == []
        collector.add(store, labels=labels)
        assert value(scrape(collector)["agentos_store_up"], **labels) == 1


def test_stores_in_one_collector_have_labels_of_the_same_names(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        collector = StoreCollector(store, labels={"store": "a"})
        wrong: list[Any] = [None, {"tenant": "b"}, {"store": "a"}, {"store": 1}, {"store": "\ud800"}]
        for labels in wrong:
            with pytest.raises(InvalidValueError):
                collector.add(store, labels=labels)
        for name in ("kind", "operation", "state", "le", "__name__", "a-b", "", "1a"):
            with pytest.raises(InvalidValueError):
                StoreCollector(store, labels={name: "a"})
        with pytest.raises(InvalidValueError):
            StoreCollector(store, timeout=0)


def test_an_asynchronous_store_is_scraped_from_any_thread(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await store.tasks.create(title="x")
            found = await asyncio.to_thread(scrape, StoreCollector(store, timeout=20))
            assert value(found["agentos_store_operations"], "_total", operation="tasks.create") == 1

    asyncio.run(main())


def test_without_the_extra_the_error_says_how_to_get_it(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError
        return real(name, *rest)

    with Store.open(sqlite_url) as store:
        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(UsageError, match=r"agentos-store\[prometheus\]"):
            StoreCollector(store)
