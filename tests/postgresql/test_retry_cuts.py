"""Connections that are cut when the server has committed and before anybody hears of it: nothing is there twice."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Store, TransientError
from agentos_store.leases.models import Fence
from tests.postgresql.test_server_faults import COMMIT, Opened, pool_of

CUTS = int(os.environ.get("AGENTOS_STORE_CUTS", "20"))
"""In all; 1,000 in the long form."""

LONG = dt.timedelta(minutes=5)

Call = Callable[[Store, int], object]
Count = Callable[[Store], int]

OPERATIONS: dict[str, tuple[bytes, Call, Count]] = {
    "tasks.create": (b"INTO public.tasks", lambda s, n: s.tasks.create(title=f"{n}"), lambda s: s.tasks.count() - 1),
    "audits.record": (
        b"public.task_audits",
        lambda s, n: s.audits.record("task", event_type=f"e{n}"),
        # A verdict has an audit of its own.
        lambda s: s.audits.count() - s.verdicts.count(),
    ),
    "messages.append": (
        b"INTO public.messages",
        lambda s, n: s.messages.append("session", role="user", content=f"{n}"),
        lambda s: s.messages.count(session_id="session"),
    ),
    "messages.save": (
        b"INTO public.messages",
        lambda s, n: s.messages.save("saved", [*s.messages.history("saved"), {"role": "user", "content": f"{n}"}]),
        lambda s: s.messages.count(session_id="saved"),
    ),
    "messages.save, rewriting": (
        COMMIT,
        lambda s, n: s.messages.save("rewritten", [{"role": "user", "content": f"{n}"}]),
        lambda s: s.sessions.get("rewritten").generation,
    ),
    "sessions.create": (
        b"INTO public.sessions",
        lambda s, n: s.sessions.create(title=f"{n}"),
        lambda s: s.sessions.count() - 3,
    ),
    "users.create": (b"INTO public.users", lambda s, n: s.users.create(name=f"{n}"), lambda s: s.users.count()),
    "agents.create": (
        b"INTO public.agents",
        lambda s, n: s.agents.create(role=f"{n}"),
        lambda s: s.agents.count() - 1,
    ),
    "tool_calls.record": (
        b"public.tool_call_records",
        lambda s, n: s.tool_calls.record(tool_name=f"t{n}", agent_id="agent"),
        lambda s: s.tool_calls.count(),
    ),
    "contexts.save": (
        b"INTO public.contexts",
        lambda s, n: s.contexts.save(context_data=n, agent_id="agent"),
        lambda s: s.contexts.count(),
    ),
    "inbox.add": (
        b"INTO public.supervisor_inbox",
        lambda s, n: s.inbox.add("task", event_type=f"e{n}"),
        lambda s: s.inbox.count(),
    ),
    "verdicts.record": (
        b"public.guardian_verdicts",
        lambda s, n: s.verdicts.record("task", triggered_by=f"g{n}", decision="warn"),
        lambda s: s.verdicts.count(),
    ),
    "memory.remember": (
        b"public.memory_items",
        lambda s, n: s.memory.remember(f"fact {n}", type="fact"),
        lambda s: s.memory.count(),
    ),
    "leases.acquire": (
        b"INTO public.leases",
        lambda s, n: s.leases.acquire(f"agent-{n}", ttl=LONG),
        lambda s: sum(lease.token for lease in s.leases.iterate()),
    ),
    "leases.release": (
        b"UPDATE public.leases",
        lambda s, n: s.leases.release(Fence(f"held-{n}", 1)),
        lambda s: CUTS - s.leases.count(prefix="held-"),
    ),
    "tasks.merge_metadata": (
        COMMIT,
        lambda s, n: s.tasks.merge_metadata("task", {f"{n}": n}),
        lambda s: len(s.tasks.get("task").metadata_),
    ),
}


def test_a_cut_connection_after_the_commit_doubles_no_row(open_store: Opened, proxy: Any) -> None:
    store = open_store(proxy.url)
    store.tasks.create(task_id="task", title="t")
    for key in ("session", "saved", "rewritten"):
        store.sessions.create(id=key)
    store.messages.append("rewritten", role="user", content="to be replaced")
    store.agents.create("agent")
    done = dict.fromkeys(OPERATIONS, 0)
    for number in range(CUTS):
        name = list(OPERATIONS)[number % len(OPERATIONS)]
        mark, call, count = OPERATIONS[name]
        if name == "leases.release":
            store.leases.acquire(f"held-{number}", ttl=LONG)
        before = count(store)
        # The text of a statement that is prepared travels once for each connection.
        pool_of(store).dispose()
        proxy.cut_answer_to(mark)
        call(store, number)
        assert proxy.cuts == number + 1, name
        done[name] += 1
        assert count(store) - before == 1, name
    for name, (_, _, count) in OPERATIONS.items():
        if name not in {"leases.release", "leases.acquire"}:
            assert count(store) == done[name], name
    assert store.audits.verify().ok
    assert [message.seq for message in store.messages.iterate("session")] == list(range(done["messages.append"]))


@pytest.mark.parametrize("command", [b"BEGIN", b"INTO public.messages"])
def test_a_save_that_is_cut_before_its_commit_is_known_to_have_stored_nothing(
    open_store: Opened, proxy: Any, command: bytes
) -> None:
    store = open_store(proxy.url, retries=0)
    session_id = store.sessions.create().id
    store.messages.append(session_id, role="user", content="a")
    pool_of(store).dispose()
    proxy.cut_answer_to(command)
    with pytest.raises(TransientError) as caught:
        store.messages.save(session_id, [{"role": "user", "content": "b"}])
    assert not caught.value.outcome_unknown
    assert [each["content"] for each in store.messages.history(session_id)] == ["a"]


def test_a_reader_that_is_cut_reads_again(open_store: Opened, proxy: Any) -> None:
    store = open_store(proxy.url)
    store.tasks.create(task_id="task", title="t")
    pool_of(store).dispose()
    proxy.cut_answer_to(b"FROM public.tasks")
    assert store.tasks.get("task").title == "t"
    assert proxy.cuts == 1


def test_a_claim_that_was_cut_waits_until_its_lease_lapses(open_store: Opened, proxy: Any) -> None:
    store = open_store(proxy.url)
    store.tasks.create(task_id="task", title="t")
    store.inbox.add("task", event_type="e")
    pool_of(store).dispose()
    proxy.cut_answer_to(b"UPDATE public.supervisor_inbox")
    with pytest.raises(TransientError) as caught:
        store.inbox.claim(by="w", lease=dt.timedelta(milliseconds=1))
    assert caught.value.outcome_unknown
    while not (taken := store.inbox.claim(by="w", lease=LONG)):
        pass
    assert taken[0].attempts == 2
