"""Parallel appenders: no number is left out or given twice, and a repeat finds the first row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest

from agentos_store import ConflictError, Settings, Store
from agentos_store.conversations import saving
from agentos_store.conversations.difference import find_runs
from agentos_store.engine.session import Session
from tests.engine.gather import PROCESSES, threads
from tests.store.test_budgets import counted

APPENDERS = 32
TURNS = 5


def turn(store: Store, session_id: str, number: int, key: str | None) -> list[tuple[str | None, str, int]]:
    """Append one message or two; return the key, the identifier and the number of each."""
    values: dict[str, Any] = {"role": "user", "content": f"{number}", "token_count": 2, "cost": Decimal("0.01")}
    if number % 4 == 3:
        rows = store.messages.append_many(
            session_id, [{**values, "idempotency_key": None if key is None else f"{key}-{part}"} for part in "ab"]
        )
        return [
            (None if key is None else f"{key}-{part}", row.id, row.seq) for part, row in zip("ab", rows, strict=True)
        ]
    if number % 4 == 2:
        with store.transaction() as tx:
            row = tx.messages.append(session_id, **values, idempotency_key=key)
    else:
        row = store.messages.append(session_id, **values, idempotency_key=key)
    return [(key, row.id, row.seq)]


def work(store: Store, session_id: str, appender: int) -> list[tuple[str | None, str, int]]:
    """Append ten times; of two neighbours both use the same keys, half of the appenders none."""
    pair = appender // 2
    keyed = appender % 4 < 2
    return [
        each
        for number in range(TURNS)
        for each in turn(store, session_id, number, f"{pair}-{number}" if keyed else None)
    ]


def appending_process(url: str, session_id: str, appender: int, start: Any, answers: Any) -> None:
    # How long one waits for so many others depends on the machine.
    with Store.open(url, settings=Settings.load(lock_timeout=60)) as store:
        start.wait()
        answers.put(work(store, session_id, appender))


def judge(store: Store, session_id: str, answers: Iterable[list[tuple[str | None, str, int]]]) -> None:
    rows = list(store.messages.iterate(session_id))
    assert [row.seq for row in rows] == list(range(len(rows)))
    by_key: dict[str, set[str]] = {}
    told: set[tuple[str, int]] = set()
    for answer in answers:
        for key, id_, seq in answer:
            told.add((id_, seq))
            if key is not None:
                by_key.setdefault(key, set()).add(id_)
    assert all(len(ids) == 1 for ids in by_key.values()), "a repeat got another row"
    assert told == {(row.id, row.seq) for row in rows}
    # Half of the appenders repeat what the other of their pair does: six messages in five turns.
    assert len(rows) == APPENDERS // 2 * 6 + APPENDERS // 4 * 6
    session = store.sessions.get(session_id)
    assert (session.message_count, session.next_seq) == (len(rows), len(rows))
    assert (session.total_tokens, session.total_cost) == (2 * len(rows), Decimal("0.01") * len(rows))


def test_appenders_in_threads_leave_no_gap(store: Store) -> None:
    session_id = store.sessions.create().id
    start = threading.Barrier(APPENDERS)

    def appender(number: int) -> Callable[[], Any]:
        def run() -> Any:
            start.wait()
            return work(store, session_id, number)

        return run

    with threads([appender(number) for number in range(APPENDERS)]) as answers:
        pass
    judge(store, session_id, answers)


def test_appenders_in_processes_leave_no_gap(store: Store, url: str) -> None:
    session_id = store.sessions.create().id
    start, answers = PROCESSES.Event(), PROCESSES.Queue()
    running = [
        PROCESSES.Process(target=appending_process, args=(url, session_id, number, start, answers), daemon=True)
        for number in range(APPENDERS)
    ]
    for each in running:
        each.start()
    start.set()
    found = [answers.get(timeout=60) for _ in running]
    for each in running:
        each.join()
    judge(store, session_id, found)


def test_a_list_that_only_grew_is_read_and_appended_without_a_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = store.sessions.create().id
    said = [{"role": "user", "content": f"{n}"} for n in range(3)]
    store.messages.save(session_id, said[:1])
    with counted(store, monkeypatch) as sent:
        store.messages.save(session_id, said[:2])
        store.messages.save(session_id, said)
    # The list; the counters and the rows, in one statement on PostgreSQL.
    assert sent == {"messages.save": 3 if store.capabilities.backend == "sqlite" else 2}


@pytest.mark.parametrize("other", ["append", "save"])
@pytest.mark.parametrize("expected", [{}, {"expected_generation": 0, "expected_next_seq": 2}])
def test_a_save_sees_what_others_did_between_its_reading_and_its_writing(
    both: list[Store], monkeypatch: pytest.MonkeyPatch, other: str, expected: dict[str, int]
) -> None:
    # On SQLite nobody comes in between.
    store = both[1]
    session_id = store.sessions.create().id
    said = [{"role": "user", "content": f"{n}"} for n in range(3)]
    store.messages.save(session_id, said[:2])
    comparisons = 0

    def meanwhile() -> None:
        if other == "append":
            store.messages.append(session_id, role="user", content="another's")
        else:
            store.messages.save(session_id, [{"role": "user", "content": "another's"}, said[0]])

    def find_runs_late(*args: Any) -> Any:
        nonlocal comparisons
        comparisons += 1
        if comparisons == 1:
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join()
        return find_runs(*args)

    monkeypatch.setattr(saving, "find_runs", find_runs_late)
    if expected:
        with pytest.raises(ConflictError):
            store.messages.save(session_id, said, **expected)
        there = ["0", "1", "another's"] if other == "append" else ["another's", "0"]
    else:
        saved = store.messages.save(session_id, said)
        assert (saved.generation, saved.added) == ((1, 1) if other == "append" else (2, 2))
        there = ["0", "1", "2"]
    assert [each["content"] for each in store.messages.history(session_id)] == there
    session = store.sessions.get(session_id)
    assert (session.message_count, session.next_seq) == (len(there), len(there))


def test_a_save_sees_the_first_messages_that_others_append_while_it_reads(
    both: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = both[1]
    session_id = store.sessions.create().id
    first = Session.first
    calls = 0

    def first_late(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            thread = threading.Thread(
                target=store.messages.append, args=(session_id,), kwargs={"role": "user", "content": "another's"}
            )
            thread.start()
            thread.join()
        return first(*args)

    monkeypatch.setattr(Session, "first", first_late)
    said = [{"role": "user", "content": "another's"}, {"role": "user", "content": "mine"}]
    saved = store.messages.save(session_id, said)
    assert (saved.generation, saved.kept, saved.added) == (0, 1, 1)
    assert [each["content"] for each in store.messages.history(session_id)] == ["another's", "mine"]


def test_appending_while_the_list_is_rewritten_leaves_no_gap(store: Store) -> None:
    session_id = store.sessions.create().id
    store.messages.append_many(session_id, [{"role": "user", "content": f"old {n}"} for n in range(20)])
    stop = threading.Event()

    def rewrite() -> int:
        count = 0
        while not stop.is_set():
            history = store.messages.history(session_id)
            store.messages.save(session_id, [{"role": "system", "content": f"summary {count}"}, *history[-5:]])
            count += 1
        return count

    def append() -> list[str]:
        return [store.messages.append(session_id, role="user", content=f"new {n}").id for n in range(40)]

    with threads([rewrite, append, append]) as outcomes:
        while None in outcomes[1:]:
            stop.wait(0.01)
        stop.set()
    assert isinstance(outcomes[0], int), outcomes[0]
    for ids in outcomes[1:]:
        # Rewritten by who had not seen them, perhaps; but stored, every one.
        assert all(store.messages.exists(id_) for id_ in ids)
    rows = list(store.messages.iterate(session_id))
    session = store.sessions.get(session_id)
    assert [row.seq for row in rows] == list(range(session.message_count)) == list(range(session.next_seq))
