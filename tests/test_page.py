from __future__ import annotations

import base64
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentos_store import Store
from agentos_store.errors import InvalidValueError
from agentos_store.operation import Access
from agentos_store.page import LONGEST_CURSOR, Page
from agentos_store.tasks.repository import _LISTING

ROWS = 23


@pytest.fixture
def titles(store: Store) -> list[str]:
    made = [f"task {n:02}" for n in range(ROWS)]
    for n, title in enumerate(made):
        store.tasks.create(title=title, metadata={"even": n % 2 == 0, "n": n, "tags": ["a", n]})
    return made


def walk(store: Store, limit: int, **options: Any) -> list[str]:
    return [task.title for task in store.tasks.iterate(limit=limit, **options)]


@pytest.mark.parametrize("limit", [1, 2, 7, ROWS - 1, ROWS, ROWS + 1, 10_000])
def test_walking_gives_each_row_once_and_in_order(store: Store, titles: list[str], limit: int) -> None:
    assert walk(store, limit) == titles
    assert walk(store, limit, order="-created_at") == titles[::-1]
    assert walk(store, limit, metadata={"even": True}) == titles[::2]


def test_a_page_has_at_most_the_limit_and_tells_whether_more_follow(store: Store, titles: list[str]) -> None:
    page = store.tasks.list(limit=ROWS - 1)
    assert len(page) == ROWS - 1
    assert page.next is not None
    last = store.tasks.list(limit=ROWS - 1, cursor=page.next)
    assert [task.title for task in last] == titles[-1:]
    assert last.next is None
    assert store.tasks.list(limit=ROWS).next is None
    assert store.tasks.list(metadata={"n": -1}) == Page([], None)


def test_rows_of_one_instant_are_all_walked_once(store: Store) -> None:
    from sqlalchemy import update

    from agentos_store.engine.statement import Statement
    from agentos_store.tasks.models import Task

    keys = sorted(store.tasks.create(title="t").task_id for _ in range(ROWS))
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    same = Statement[Any](update(Task.table()).values(created_at=now), lasting=False)
    store._backend.run(Access.WRITE, "test", lambda session: session.execute(same), repeatable=True)
    for limit in (1, 2, 5):
        assert [task.task_id for task in store.tasks.iterate(limit=limit)] == keys
        assert [task.task_id for task in store.tasks.iterate(limit=limit, order="-created_at")] == keys[::-1]


def test_rows_that_are_added_meanwhile_neither_hide_nor_repeat_a_row(store: Store, titles: list[str]) -> None:
    done = threading.Event()

    def add() -> None:
        while not done.is_set():
            store.tasks.create(title="new")

    writer = threading.Thread(target=add)
    writer.start()
    try:
        forward, backward = [], []
        for number, task in enumerate(store.tasks.iterate(limit=3)):
            forward.append(task)
            if number == ROWS + 20:
                break
        backward = list(store.tasks.iterate(limit=3, order="-created_at"))
    finally:
        done.set()
        writer.join()
    assert [task.title for task in forward][:ROWS] == titles
    assert [task.title for task in backward if task.title != "new"] == titles[::-1]
    for walked in (forward, backward):
        assert len({task.task_id for task in walked}) == len(walked)


def test_rows_that_are_removed_meanwhile_hide_no_other_row(store: Store, titles: list[str]) -> None:
    seen = []
    for task in store.tasks.iterate(limit=4):
        seen.append(task.title)
        store.tasks.delete(task.task_id)
    assert seen == titles


def test_an_offset_counts_from_the_start_of_the_list(store: Store, titles: list[str]) -> None:
    assert [task.title for task in store.tasks.list(offset=5, limit=3)] == titles[5:8]
    assert walk(store, 3, offset=5) == titles[5:]
    assert walk(store, 3, offset=ROWS) == []


@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize("value", [-1, 10**9, 2**63, True, 1.0, "5", None, float("nan")])
def test_a_limit_or_an_offset_out_of_bounds_is_refused(store: Store, name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.list(**{name: value})
    assert caught.value.name == name


def test_a_limit_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.list(limit=0)
    assert caught.value.name == "limit"


HOSTILE_ORDERS: list[Any] = [
    "created_at; DROP TABLE tasks",
    "created_at DESC",
    "created_at, task_id",
    "--created_at",
    "-",
    "",
    " created_at",
    "CREATED_AT",
    "metadata",
    "title",
    "task_id",
    "1",
    "created_at\0",
    b"created_at",
    0,
    True,
    ["created_at"],
    {"created_at": 1},
    object(),
]


@pytest.mark.parametrize("order", HOSTILE_ORDERS)
def test_an_order_that_is_not_offered_is_refused(store: Store, order: Any) -> None:
    for call in (store.tasks.list, store.audits.query, store.projects.list, store.lineage.list):
        with pytest.raises(InvalidValueError) as caught:
            call(order=order)
        assert caught.value.name == "order"
    assert store.tasks.count() == 0


def test_an_unknown_filter_is_refused(store: Store) -> None:
    call: Any = store.tasks.list

    def ask(body: Callable[..., Any], name: str) -> None:
        store._backend.run(Access.READ, "test", lambda session: body(session, {name: "x"}), repeatable=True)

    for name in ("titel", "title", "1 = 1; --", "limit_", "after_0"):
        with pytest.raises(TypeError):
            call(**{name: "x"})
        with pytest.raises(InvalidValueError) as caught:
            ask(_LISTING.page, name)
        assert caught.value.name == name
        with pytest.raises(InvalidValueError):
            ask(_LISTING.count, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "gone"),
        ("status", 5),
        ("task_type", b"x"),
        ("session_id", ""),
        ("project_id", "a\nb"),
        ("agent_id", "a" * 256),
        ("created_after", dt.datetime(2026, 1, 1)),  # noqa: DTZ001  without a zone
        ("created_before", "2026-01-01"),
        ("metadata", "dark"),
        ("metadata", ["dark"]),
        ("metadata.a[0]", {"a": [float("inf")]}),
    ],
)
def test_a_filter_of_a_wrong_value_is_refused_by_its_name(store: Store, name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.list(**{name.split(".", maxsplit=1)[0]: value})
    assert caught.value.name == name


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        call()
    assert caught.value.name == "cursor"


def first_cursor(store: Store) -> str:
    cursor = store.tasks.list(limit=1).next
    assert cursor is not None
    return cursor


def test_a_cursor_of_another_query_is_refused(store: Store, titles: list[str]) -> None:
    store.projects.create(path="/a")
    cursor = first_cursor(store)
    assert store.tasks.list(limit=5, cursor=cursor).items
    others: list[dict[str, Any]] = [
        {"order": "-created_at"},
        {"status": "created"},
        {"metadata": {"even": True}},
        {"created_after": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
    ]
    for options in others:
        refused(partial(store.tasks.list, cursor=cursor, **options))
    refused(lambda: store.projects.list(cursor=cursor))
    refused(lambda: store.audits.query(cursor=cursor))
    filtered = store.tasks.list(limit=1, metadata={"even": True}).next
    refused(lambda: store.tasks.list(cursor=filtered))
    refused(lambda: store.tasks.list(cursor=filtered, metadata={"even": False}))


def encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_forged_cursor_is_refused(store: Store, titles: list[str]) -> None:
    mark, time, key = json.loads(base64.urlsafe_b64decode(first_cursor(store) + "=="))
    forged: list[Any] = [
        [mark],
        [mark, time],
        [mark, time, key, key],
        [mark, key, time],
        [mark, None, key],
        [mark, time, None],
        [mark, 5, key],
        [mark, time, 5],
        [mark, time, ["x"]],
        [mark, "2026-01-01", key],
        [mark, "0001-01-01T00:00:00.000000Z", key],
        [mark, "9999-12-31T23:59:59.999999Z", key],
        [mark, "2026-13-01T00:00:00.000000Z", key],
        [mark, time, ""],
        [mark, time, "\0"],
        [mark, time, "\ud800"],
        [mark, time, "x" * 256],
        [None, time, key],
        ["", time, key],
        {"mark": mark},
        mark,
        None,
    ]
    for value in forged:
        refused(partial(store.tasks.list, cursor=encode(value)))
    links = store.lineage
    for n in range(2):
        links.record(store.tasks.list(limit=1).items[0].task_id, kind="k", ref_id=str(n))
    cursor = links.list(limit=1).next
    assert cursor is not None
    mark, number = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    assert number == links.list(limit=1).items[0].lineage_id
    for value in (True, 1.0, "1", 2**63, -(2**63) - 1, None):
        refused(partial(links.list, cursor=encode([mark, value])))
    assert links.list(cursor=encode([mark, 2**63 - 1])).items == []


BROKEN: list[Any] = [
    "",
    " ",
    "=",
    "a",
    "é",
    "\0",
    "\ud800",
    "!!!!",
    b"abc",
    5,
    ["x"],
    encode([]),
    "[" * 60_000,
    base64.urlsafe_b64encode(b"[" * 40_000).decode(),
    base64.urlsafe_b64encode(b"\xff\xfe\x00").decode(),
    base64.urlsafe_b64encode(b"9" * 5_000).decode(),
    "A" * (LONGEST_CURSOR + 1),
    "A" * 10_000_000,
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_malformed_cursor_is_refused(store: Store, number: int) -> None:
    refused(lambda: store.tasks.list(cursor=BROKEN[number]))


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store whose list has two pages; what a cursor is allowed to be does not depend on the database."""
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('page')}/registry.sqlite") as store:
        for n in range(2):
            store.tasks.create(title=str(n))
        yield store


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4)
)


@settings(max_examples=300, deadline=None)
@given(cursor=st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()) | json_values.map(encode))
@example(cursor="AAAA")
def test_no_text_that_was_not_made_here_is_taken_for_a_cursor(listed: Store, cursor: str) -> None:
    refused(lambda: listed.tasks.list(cursor=cursor))


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 200), put=st.text(max_size=3))
def test_a_damaged_cursor_is_refused_or_is_still_one(listed: Store, cut: int, put: str) -> None:
    whole = first_cursor(listed)
    damaged = whole[: cut % len(whole)] + put
    try:
        listed.tasks.list(cursor=damaged)
    except InvalidValueError as error:
        if error.name != "cursor":
            raise


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(json_values, min_size=2, max_size=2))
def test_a_cursor_with_any_values_is_refused_or_serves(listed: Store, parts: list[Any]) -> None:
    mark = json.loads(base64.urlsafe_b64decode(first_cursor(listed) + "=="))[0]
    try:
        listed.tasks.list(cursor=encode([mark, *parts]))
    except InvalidValueError as error:
        if error.name != "cursor":
            raise


small = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, -1.5, 1e16, "", "a", "天"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    documents=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), small, max_size=2), min_size=1, max_size=4),
    pattern=st.dictionaries(st.sampled_from(["a", "b"]), small, max_size=2),
)
def test_containment_is_the_same_on_both_databases(
    both: list[Store], documents: list[dict[str, Any]], pattern: dict[str, Any]
) -> None:
    answers = []
    for store in both:
        keys = [store.tasks.create(title=str(n), metadata=each).task_id for n, each in enumerate(documents)]
        found = [task.title for task in store.tasks.iterate(limit=2, metadata=pattern)]
        assert store.tasks.count(metadata=pattern) == len(found)
        answers.append(found)
        for key in keys:
            store.tasks.delete(key)
    assert answers[0] == answers[1]
