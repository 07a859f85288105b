"""Searches beside writers and beside each other: every acknowledged message is found, and nothing twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentos_store import Settings, Store
from agentos_store.conversations.message_index import SOME
from agentos_store.conversations.message_search import MessageSearch
from agentos_store.testing.postgres import connect
from tests.engine.gather import PROCESSES, threads, wait_for

SESSIONS = ["a", "b", "c"]
TURNS = 25


def append(store: Store, name: str) -> list[str]:
    """Append to one session after another, and search for what was acknowledged; return all of it."""
    said: list[str] = []
    for turn in range(TURNS):
        session_id = SESSIONS[turn % len(SESSIONS)]
        word = f"{name}x{turn}"
        if turn % 3:
            store.messages.append(session_id, role="user", content=f"天气 {word}")
        else:
            with store.transaction() as tx:
                tx.messages.append(session_id, role="user", content=f"天气 {word}")
                assert [hit.message.content for hit in tx.messages.search(word)] == [f"天气 {word}"]
        said.append(word)
        if turn % 5 == 4:
            (hit,) = store.messages.search(word)
            assert hit.message.session_id == session_id
            everything = [hit.message.id for hit in store.messages.search("天气", limit=1000)]
            assert len(everything) == len(set(everything))
            mine = store.messages.search(f"{name}x*", limit=1000)
            assert sorted(hit.message.content for hit in mine) == sorted(f"天气 {each}" for each in said)
    return said


def judge(store: Store, answers: list[list[str]]) -> None:
    said = sorted(f"天气 {word}" for answer in answers for word in answer)
    assert sorted(hit.message.content for hit in store.messages.search("天气", limit=1000)) == said
    report = store.search.check("message")["message"]
    assert (report.documents, report.missing, report.stale, report.orphaned) == (len(said), 0, 0, 0)
    assert all(store.sessions.get(key).unindexed_from is None for key in SESSIONS)


def test_threads_find_what_was_acknowledged(store: Store) -> None:
    for key in SESSIONS:
        store.sessions.create(id=key)

    def appender(number: int) -> Callable[[], Any]:
        return lambda: append(store, f"t{number}")

    with threads([appender(number) for number in range(6)]) as outcomes:
        pass
    for outcome in outcomes:
        assert isinstance(outcome, list), outcome
    judge(store, outcomes)


def appending_process(url: str, name: str, start: Any, answers: Any) -> None:
    with Store.open(url, settings=Settings.load(lock_timeout=60)) as store:
        start.wait()
        try:
            answers.put(append(store, name))
        except BaseException as error:
            answers.put(repr(error))
            raise


def test_processes_find_what_was_acknowledged(store: Store, url: str) -> None:
    for key in SESSIONS:
        store.sessions.create(id=key)
    start, answers = PROCESSES.Event(), PROCESSES.Queue()
    running = [
        PROCESSES.Process(target=appending_process, args=(url, f"p{number}", start, answers), daemon=True)
        for number in range(4)
    ]
    for each in running:
        each.start()
    start.set()
    found = [answers.get(timeout=60) for _ in running]
    for each in running:
        each.join()
    assert all(isinstance(each, list) for each in found), found
    judge(store, found)


def test_searches_that_meet_share_the_work(store: Store) -> None:
    store.sessions.create(id="long")
    store.messages.append_many("long", [{"role": "user", "content": f"天气 n{n}"} for n in range(3000)])
    for key in SESSIONS:
        store.sessions.create(id=key)
        store.messages.append(key, role="user", content="天气")
    together = threading.Barrier(4)

    def search() -> tuple[int, int]:
        together.wait()
        return len(store.messages.search("n2999")), len(store.messages.search("天气", limit=1000))

    with threads([search] * 4) as outcomes:
        pass
    assert outcomes == [(1, 1000)] * 4
    report = store.search.check("message")["message"]
    assert (report.documents, report.missing, report.stale, report.orphaned) == (3003, 0, 0, 0)


def test_rewriting_and_purging_beside_searches_leaves_nothing_behind(store: Store) -> None:
    for key in SESSIONS:
        store.sessions.create(id=key)
        store.messages.append_many(key, [{"role": "user", "content": f"天气 {key}{n}"} for n in range(40)])
    stop = threading.Event()

    def search() -> int:
        count = 0
        while not stop.is_set():
            keys = [hit.message.id for hit in store.messages.search("天气", limit=1000)]
            assert len(keys) == len(set(keys))
            count += 1
        return count

    def rewrite() -> None:
        try:
            for turn in range(25):
                history = store.messages.history("a")
                store.messages.save("a", [{"role": "system", "content": f"天气 summary{turn}"}, *history[-20:]])
                store.messages.append("b", role="user", content=f"天气 more{turn}")
                assert len(store.messages.search(f"more{turn}")) == len(store.messages.search(f"summary{turn}")) == 1
                made = store.sessions.create().id
                store.messages.append_many(made, [{"role": "user", "content": "天气 brief"}] * 3)
                store.sessions.purge(made)
            store.sessions.purge("c")
        finally:
            stop.set()

    with threads([rewrite, search, search]) as outcomes:
        pass
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes), outcomes
    assert len(store.messages.search("天气", limit=1000)) == store.messages.count()
    assert store.messages.search("brief") == []
    store.search.rebuild("message")
    report = store.search.check("message")["message"]
    assert (report.documents, report.missing, report.stale, report.orphaned) == (21 + 65, 0, 0, 0)


def searching_process(url: str, began: Any) -> None:
    with Store.open(url) as store:
        began.send(True)
        store.messages.search("anything")
        began.send(False)
        time.sleep(60)


def test_a_killed_indexer_leaves_an_index_that_the_next_one_completes(store: Store, url: str) -> None:
    store.sessions.create(id="s")
    chance = random.Random(7)
    count = 0
    for turn in range(int(os.environ.get("AGENTOS_STORE_KILLS", "30")) // 6):
        store.messages.append_many("s", [{"role": "user", "content": f"天气 k{turn}n{n}"} for n in range(600)])
        count += 600
        reader, writer = PROCESSES.Pipe(duplex=False)
        victim = PROCESSES.Process(target=searching_process, args=(url, writer), daemon=True)
        victim.start()
        assert reader.recv()
        reader.poll(chance.uniform(0.0, 0.15))
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        assert len(store.messages.search(f"k{turn}n*", limit=1000)) == 600
    # PostgreSQL may not have noticed yet that the last one is gone, and holds the session for it: that is waited for.
    store.messages.append("s", role="user", content="天气")
    assert len(store.messages.search("天气", session_id="s", limit=1)) == 1
    count += 1
    report = store.search.check("message")["message"]
    assert (report.documents, report.missing, report.stale, report.orphaned) == (count, 0, 0, 0)
    assert store.search.probe()


def test_a_search_ends_though_others_write_faster_than_it_indexes(store: Store) -> None:
    store.sessions.create(id="s")
    store.messages.append_many("s", [{"role": "user", "content": f"天气 n{n}"} for n in range(2 * SOME)])
    steps = MessageSearch.search.steps(store.messages, "n*", limit=1000)
    hits: Any = None
    call = next(steps)
    for _ in range(20):
        found = call()
        store.messages.append_many("s", [{"role": "user", "content": "later"}] * 2 * SOME)
        try:
            call = steps.send(found)
        except StopIteration as end:
            hits = end.value
            break
    assert len(hits or ()) == 2 * SOME


def test_a_purge_beside_a_rebuilding_leaves_nothing_of_the_messages(store: Store, url: str, backend: str) -> None:
    for key in SESSIONS:
        store.sessions.create(id=key)
        store.messages.append_many(key, [{"role": "user", "content": f"天气 {n}"} for n in range(20)])
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as others, contextlib.ExitStack() as stack:
        with store.transaction() as tx:
            tx.search.rebuild_batch("message")
            if backend == "sqlite":
                purged = others.submit(store.sessions.purge, "a")
            else:
                # A conversation may be rewritten meanwhile.
                rewritten = [{"role": "user", "content": f"天气 {n}"} for n in (-1, *range(20))]
                assert others.submit(store.messages.save, "b", rewritten).result(20).moved == 20
                purged = others.submit(store.sessions.purge, "a")
                admin = stack.enter_context(connect(url))
                wait_for(lambda: admin.execute(waits).fetchone() is not None)
        purged.result()
    report = store.search.check("message")["message"]
    assert (report.stale, report.orphaned) == (0, 0)
