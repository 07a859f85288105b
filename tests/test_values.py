"""What is stored comes back equal on both databases, and what is refused is refused on both, by the same name."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentos_store import Settings, Store
from agentos_store.errors import InvalidValueError, PayloadTooLargeError, StoreError


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a caller sees of the call."""
    try:
        return "stored", call()
    except InvalidValueError as error:
        return type(error).__name__, (error.name, error.why)
    except StoreError as error:
        return type(error).__name__, str(error)


def exactly(value: Any) -> str:
    """Tell values apart that Python holds equal: 1 and 1.0 and True, 0.0 and -0.0."""
    return repr(value)


def same(both: list[Store], call: Callable[[Store], Any], field: str, expected: Any) -> None:
    """Both databases store and give back the expected value, or refuse it under the field's name for one reason."""
    one, other = (outcome(partial(call, store)) for store in both)
    assert exactly(one) == exactly(other)
    kind, seen = one
    if kind == "stored":
        assert exactly(seen) == exactly(expected)
    else:
        assert kind == "InvalidValueError", one
        assert seen[0].split(".")[0].split("[")[0] == field, one


def loosely(value: Any) -> Any:
    """Sort the keys and take the sign of zeros, which only exact JSON keeps."""
    if isinstance(value, dict):
        return {key: loosely(value[key]) for key in sorted(value, key=repr)}
    if isinstance(value, float):
        return value + 0.0
    return [loosely(each) for each in value] if isinstance(value, list) else value


def created(store: Store, field: str, column: str, **values: Any) -> Any:
    task = store.tasks.create(**{"title": "t", **values})
    try:
        return getattr(store.tasks.get(task.task_id), column)
    finally:
        store.tasks.delete(task.task_id)


def updated(store: Store, field: str, column: str, **values: Any) -> Any:
    task = store.tasks.create(title="t")
    try:
        store.tasks.update(task.task_id, **values)
        return getattr(store.tasks.get(task.task_id), column)
    finally:
        store.tasks.delete(task.task_id)


any_text = st.text(st.characters(), max_size=8) | st.text("ab\0\ud800\udc00天\U0001f600é\n", max_size=6)
anything = st.none() | st.integers() | st.floats() | st.binary(max_size=3) | st.booleans() | st.just(["x"])

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53 + 1, 2**63, -(2**63) - 1, 2**80, 1e16, 1e15, -0.0, 0.0, 1.0, 5e-324, 1.7e308, 1e22, 0.1])
    | st.floats()
    | any_text
)
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
odd_values = st.recursive(
    json_scalars | st.binary(max_size=2) | st.just({1, 2}) | st.just((1, 2)) | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text | st.integers(), inner, max_size=2),
    max_leaves=4,
)
zones = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=14)), dt.timezone(-dt.timedelta(hours=12))])
instants = st.datetimes(timezones=zones)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(value=any_text | anything)
@example("\0")
@example("\ud800")
@example("気" * 501)
def test_titles(both: list[Store], value: Any) -> None:
    for way in (created, updated):
        same(both, partial(way, field="title", column="title", title=value), "title", value)


@relaxed
@given(value=any_text | anything)
def test_who_created_a_task(both: list[Store], value: Any) -> None:
    same(both, lambda store: created(store, "created_by", "created_by", created_by=value), "created_by", value)


@relaxed
@given(value=any_text | anything)
def test_descriptions(both: list[Store], value: Any) -> None:
    project = {id(store): store.projects.create(path="/a").id for store in both}

    def change(store: Store) -> Any:
        store.projects.update(project[id(store)], description=value)
        return store.projects.get(project[id(store)]).description

    same(both, change, "description", value)


@relaxed
@given(value=json_values | odd_values)
@example(1e16)
@example(-0.0)
@example(2**80)
@example("\0")
@example("\ud83d\ude00")
@example({"b": 1, "a": {"d": [], "c": {}}})
@example(math.nan)
def test_exact_payloads_and_results(both: list[Store], value: Any) -> None:
    same(both, lambda store: created(store, "payload", "payload", payload=value), "payload", value)

    def finish(store: Store) -> Any:
        task = store.tasks.create(title="t", enqueue=True).task_id
        store.tasks.transition(task, "running")
        try:
            return store.tasks.transition(task, "completed", result=value).result
        finally:
            store.tasks.delete(task)

    same(both, finish, "result", value)


@relaxed
@given(value=json_values | odd_values)
def test_exact_payloads_of_audits(both: list[Store], value: Any) -> None:
    def record(store: Store) -> Any:
        task = store.tasks.create(title="t").task_id
        try:
            made = store.audits.record(task, event_type="e", payload=value)
            assert made is not None
            assert store.audits.verify(task).ok
            return store.audits.get(made.audit_id).payload
        finally:
            store.tasks.delete(task)

    same(both, record, "payload", value)


@relaxed
@given(value=st.dictionaries(any_text, json_values, max_size=3) | odd_values)
@example({"a": [0, {"b": math.inf}]})
@example({"a": "\0"})
@example({"\ud800": 1})
@example({"a": 1e16, "b": 2**80, "c": -0.0, "d": 10**40})
@example(None)
def test_metadata(both: list[Store], value: Any) -> None:
    if isinstance(value, tuple):
        return
    expected = {} if value is None else loosely(value)

    def create(store: Store) -> Any:
        return loosely(created(store, "metadata", "metadata_", metadata=value))

    def merge(store: Store) -> Any:
        task = store.tasks.create(title="t").task_id
        try:
            return loosely(store.tasks.merge_metadata(task, value).metadata_)
        finally:
            store.tasks.delete(task)

    same(both, create, "metadata", expected)
    if value is not None:
        same(both, merge, "metadata", expected)


@relaxed
@given(value=st.dictionaries(any_text, json_values, max_size=3), tags=st.lists(json_values, max_size=3))
def test_settings_and_tags(both: list[Store], value: Any, tags: Any) -> None:
    def create(store: Store, field: str, given: Any) -> Any:
        found = store.projects.get(store.projects.create(**{"path": "/a", field: given}).id)
        return loosely(getattr(found, field))

    same(both, lambda store: create(store, "settings", value), "settings", loosely(value))
    same(both, lambda store: create(store, "tags", tags), "tags", loosely(tags))


@relaxed
@given(value=json_values | odd_values)
def test_routing(both: list[Store], value: Any) -> None:
    def route(store: Store) -> Any:
        task = store.tasks.create(title="t").task_id
        try:
            return loosely(store.tasks.set_routing(task, route_plan=value).route_plan_json)
        finally:
            store.tasks.delete(task)

    same(both, route, "route_plan", loosely(value))
    same(
        both,
        lambda store: loosely(created(store, "requirements", "requirements_json", requirements=value)),
        "requirements",
        loosely(value),
    )


@relaxed
@given(value=instants | anything)
@example(dt.datetime(2026, 1, 1))  # noqa: DTZ001  without a zone
@example(dt.datetime.min.replace(tzinfo=dt.UTC))
@example(dt.datetime.max.replace(tzinfo=dt.UTC))
def test_instants(both: list[Store], value: Any) -> None:
    is_known = isinstance(value, dt.datetime) and value.tzinfo is not None
    try:
        expected = value.astimezone(dt.UTC).replace(fold=0) if is_known else value
    except OverflowError:
        expected = None
    for way in (created, updated):
        same(both, partial(way, field="run_after", column="run_after", run_after=value), "run_after", expected)


@relaxed
@given(value=st.integers(-(2**64), 2**64) | anything | any_text)
@example(2**63 - 1)
@example(2**63)
@example(-(2**63))
@example(-(2**63) - 1)
@example(True)
@example(1.0)
def test_whole_numbers(both: list[Store], value: Any) -> None:
    for way in (created, updated):
        same(both, partial(way, field="priority", column="priority", priority=value), "priority", value)


@relaxed
@given(value=any_text | anything)
@example("parent/fork-1795240070871")
@example("a" * 256)
@example("'; DROP TABLE tasks; --")
@example("%s ? :x {0}")
@example("\x85")
@example(" ")
def test_identifiers(both: list[Store], value: Any) -> None:
    if value is not None:
        same(both, lambda store: created(store, "task_id", "task_id", task_id=value), "task_id", value)
    same(
        both,
        lambda store: created(store, "idempotency_key", "idempotency_key", idempotency_key=value),
        "idempotency_key",
        value,
    )


@relaxed
@given(value=st.floats() | st.integers(-(2**1030), 2**1030) | anything)
@example(math.nan)
@example(-math.inf)
@example(-0.0)
@example(10**400)
def test_durations(both: list[Store], value: Any) -> None:
    def finish(store: Store) -> Any:
        task = store.tasks.create(title="t", enqueue=True).task_id
        try:
            store.tasks.transition(task, "running")
            store.tasks.transition(task, "completed", duration=value)
            found = store.tasks.get(task).duration
            # What is derived depends on the clock.
            return None if value is None else found
        finally:
            store.tasks.delete(task)

    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1024
    same(both, finish, "duration", float(value) + 0.0 if is_number else value)


def equal(value: Any, call: Callable[[], Any]) -> bool:
    return bool(call() == value)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [500, 501, 20_000])
def test_nesting_up_to_500_is_stored_and_deeper_is_refused(both: list[Store], levels: int) -> None:
    for field, column, value in (
        ("payload", "payload", deep(levels)),
        ("requirements", "requirements_json", deep(levels)),
        ("metadata", "metadata_", {"a": deep(levels - 1)}),
    ):
        one, other = (
            outcome(partial(equal, value, partial(created, store, field, column, **{field: value}))) for store in both
        )
        assert one == other
        if levels == 500:
            assert one == ("stored", True)
        else:
            assert one[0] == "InvalidValueError"
            assert one[1][0].startswith(f"{field}[" if field != "metadata" else "metadata.a[")


def test_a_payload_of_100_megabytes_is_refused_on_both(both: list[Store]) -> None:
    for store in both:
        with pytest.raises(PayloadTooLargeError) as caught:
            store.tasks.create(title="t", payload="x" * 100_000_000)
        assert (caught.value.name, caught.value.size) == ("payload", 100_000_002)
        assert store.tasks.count() == 0


def test_a_payload_of_many_megabytes_is_stored_where_the_limit_allows(url: str) -> None:
    size = int(os.environ.get("AGENTOS_STORE_PAYLOAD", "30_000_000"))
    payload = "x" * size
    with Store.open(url, settings=Settings.load(max_payload=size + 2)) as store:
        task = store.tasks.create(title="t", payload=payload)
        assert store.tasks.get(task.task_id).payload == payload
        with pytest.raises(PayloadTooLargeError):
            store.tasks.create(title="t", payload=payload + "x")


NAMED: list[tuple[str, dict[str, Any]]] = [
    ("title", {"title": None}),
    ("title", {"title": 5}),
    ("task_type", {"task_type": None}),
    ("task_type", {"task_type": "t" * 256}),
    ("priority", {"priority": None}),
    ("max_attempts", {"max_attempts": "3"}),
    ("max_attempts", {"max_attempts": True}),
    ("session_id", {"session_id": ""}),
    ("project_id", {"project_id": "a\tb"}),
    ("agent_id", {"agent_id": "a" * 256}),
    ("route_plan.a", {"route_plan": {"a": {1}}}),
    ("requirements[1]", {"requirements": [1, math.nan]}),
    ("selected_instance_id", {"selected_instance_id": 1}),
    ("router_version", {"router_version": 1.0}),
    ("metadata", {"metadata": "abc"}),
    ("metadata", {"metadata": [("a", 1)]}),
    ('metadata["a b"][3]', {"metadata": {"a b": [0, 1, 2, b""]}}),
    ("metadata", {"metadata": {1: 2}}),
    ("created_by", {"created_by": "\udfff"}),
]


@pytest.mark.parametrize(("name", "values"), NAMED)
def test_the_error_names_the_callers_parameter(both: list[Store], name: str, values: dict[str, Any]) -> None:
    for store in both:
        with pytest.raises(InvalidValueError) as caught:
            store.tasks.create(**{"title": "t", **values})
        assert caught.value.name == name
    updatable = {"title", "priority", "session_id", "project_id", "agent_id"}
    routable = {"route_plan", "requirements", "selected_instance_id", "router_version"}
    for store in both:
        task = store.tasks.create(title="t")
        field = next(iter(values))
        verb: Any = store.tasks.update if field in updatable else store.tasks.set_routing
        if field in updatable | routable and values[field] != "":
            with pytest.raises(InvalidValueError) as caught:
                verb(task.task_id, **values)
            assert caught.value.name == name
        for version in (True, "1", 2**63):
            with pytest.raises(InvalidValueError) as caught:
                store.tasks.update(task.task_id, title="u", version=version)  # type: ignore[arg-type]
            assert caught.value.name == "version"
        assert store.tasks.get(task.task_id).to_dict() == task.to_dict()
