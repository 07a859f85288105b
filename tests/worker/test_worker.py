from __future__ import annotations

import contextlib
import datetime as dt
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentos_store import InvalidValueError, LeaseLostError, Store, UsageError
from agentos_store.models import Task
from agentos_store.tasks.backoff import Backoff
from agentos_store.worker import GiveUp, Retry, WorkContext, Worker
from agentos_store.worker.worker import GLANCE
from tests.engine.gather import wait_for

SHORT = dt.timedelta(milliseconds=20)
LONG = dt.timedelta(minutes=5)
AT_ONCE = Backoff(base=dt.timedelta(0))


@contextlib.contextmanager
def working(store: Store, handler: Any, **options: Any) -> Iterator[Worker]:
    """Let a worker run in a thread; afterwards it has drained."""
    worker = Worker(store, handler, **{"poll": SHORT, "lease": LONG, **options})
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()
        if errors:
            raise errors[0]


def add(store: Store, *keys: str, **options: Any) -> None:
    for key in keys:
        store.tasks.create(title="t", task_id=key, enqueue=True, **options)


def is_in(store: Store, key: str, status: str) -> Callable[[], bool]:
    return lambda: store.tasks.get(key).status == status


def test_what_the_handler_returns_completes_the_task(store: Store) -> None:
    add(store, "a", "b", payload={"n": 2})
    seen: list[tuple[str, int, str]] = []

    def handle(task: Task, context: WorkContext) -> Any:
        context.check()
        seen.append((task.task_id, context.token, context.by))
        return {"twice": task.payload["n"] * 2}

    with working(store, handle) as worker:
        wait_for(is_in(store, "b", "completed"))
        name = worker.by
    assert seen == [("a", 1, name), ("b", 1, name)]
    assert store.tasks.get("a").result == {"twice": 4}
    assert [step.by for step in store.tasks.history("a")] == [name, name]
    assert store.audits.verify().ok


def test_an_error_ends_the_try_and_the_task_waits_for_the_next(store: Store) -> None:
    add(store, "t", max_attempts=3)

    def handle(task: Task, _: WorkContext) -> Any:
        if task.attempts < 3:
            raise ValueError(f"天 {task.attempts}\0")
        return "done"

    with working(store, handle, backoff=AT_ONCE):
        wait_for(is_in(store, "t", "completed"))
    history = store.tasks.history("t")
    assert [step.to for step in history] == ["running", "pending", "running", "pending", "running", "completed"]
    assert history[1].reason == "the handler raised an error"


def test_a_task_fails_with_its_last_try(store: Store) -> None:
    add(store, "t", max_attempts=2)

    def handle(_: Task, __: WorkContext) -> Any:
        raise SystemExit("out")

    with working(store, handle, backoff=AT_ONCE):
        wait_for(is_in(store, "t", "failed"))
    task = store.tasks.get("t")
    assert (task.attempts, task.error_message) == (2, "SystemExit: out")


def test_a_handler_can_give_up_or_ask_for_another_try(store: Store) -> None:
    add(store, "hopeless", task_type="hopeless")
    add(store, "later", task_type="later")
    add(store, "odd", task_type="odd", max_attempts=1)

    def hopeless(_: Task, __: WorkContext) -> Any:
        raise GiveUp("no such file")

    def later(_: Task, __: WorkContext) -> Any:
        raise Retry("busy", after=dt.timedelta(hours=1))

    def odd(_: Task, __: WorkContext) -> Any:
        return object()

    with working(store, {"hopeless": hopeless, "later": later, "odd": odd}):
        for key, status in (("hopeless", "failed"), ("odd", "failed"), ("later", "pending")):
            wait_for(lambda key=key, status=status: store.tasks.get(key).attempts == 1 and is_in(store, key, status)())  # type: ignore[misc]
    assert store.tasks.get("hopeless").exit_reason == "no such file"
    assert store.tasks.get("odd").exit_reason == "the result was refused"
    run_after = store.tasks.get("later").run_after
    assert run_after is not None
    assert run_after > dt.datetime.now(dt.UTC) + dt.timedelta(minutes=50)
    assert store.tasks.history("later")[1].reason == "busy"


def test_only_types_with_a_handler_are_claimed(store: Store) -> None:
    add(store, "other", task_type="other", priority=9)
    add(store, "mine", task_type="mine")
    with working(store, {"mine": lambda _, __: None}):
        wait_for(is_in(store, "mine", "completed"))
    assert store.tasks.get("other").attempts == 0


def test_as_many_handlers_run_at_once_as_asked(store: Store) -> None:
    add(store, *"abcdef")
    together = threading.Barrier(3, timeout=60)

    def handle(_: Task, __: WorkContext) -> None:
        together.wait()

    with working(store, handle, concurrency=3):
        wait_for(lambda: store.tasks.count(status="completed") == 6)
    assert together.broken is False


def test_heartbeats_keep_the_claim_of_a_handler_that_takes_long(store: Store) -> None:
    add(store, "t")
    lease = dt.timedelta(seconds=1)
    go_on = threading.Event()

    def handle(_: Task, context: WorkContext) -> str:
        assert go_on.wait(60)
        context.check()
        return "kept"

    with working(store, handle, lease=lease):
        wait_for(is_in(store, "t", "running"))
        first = store.tasks.get("t").lease_until
        assert first is not None

        def renewed() -> bool:
            until = store.tasks.get("t").lease_until
            # Longer than the lease was at first.
            return until is not None and until - first > lease

        wait_for(renewed)
        assert store.tasks.claim(by="thief", lease=LONG) is None
        go_on.set()
        wait_for(is_in(store, "t", "completed"))
    assert store.tasks.get("t").lease_token == 1


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_a_handler_is_told_that_its_task_was_cancelled_and_its_result_is_refused(store: Store, how: str) -> None:
    add(store, "t")
    told: queue.SimpleQueue[object] = queue.SimpleQueue()

    def handle(_: Task, context: WorkContext) -> str:
        told.put("began")
        wait_for(lambda: context.is_lost)
        try:
            context.check()
        except LeaseLostError as error:
            told.put(error)
        return "too late"

    with working(store, handle, lease=dt.timedelta(seconds=30)) as worker:
        # A heartbeat that is due soon, without waiting for a third of the lease.
        told.get(timeout=60)
        getattr(store.tasks, how)("t")
        (context,) = worker._contexts()
        worker._beat(context)
        error = told.get(timeout=60)
    assert isinstance(error, LeaseLostError)
    assert (error.name, error.token) == ("task t", 1)
    task = store.tasks.get("t")
    assert (task.status, task.result) == ("cancelled" if how == "cancel" else "paused", None)


def test_a_claim_whose_heartbeats_do_not_come_through_is_lost_in_time(store: Store) -> None:
    add(store, "t")
    task = store.tasks.claim(by="w", lease=LONG)
    assert task is not None
    context = WorkContext(task, "w", dt.timedelta(seconds=60))
    lost = [context.is_lost]
    context.renewed(since=-1e9)
    lost.append(context.is_lost)
    assert lost == [False, True]
    with pytest.raises(LeaseLostError):
        context.check()


def test_a_worker_that_stops_lets_what_runs_end_and_claims_no_more(store: Store) -> None:
    add(store, "a", "b")
    began, go_on = threading.Event(), threading.Event()

    def handle(_: Task, context: WorkContext) -> bool:
        began.set()
        assert go_on.wait(60)
        return context.is_stopping

    with working(store, handle) as worker:
        assert began.wait(60)
        worker.stop()
        wait_for(lambda: worker._contexts()[0].is_stopping)
        go_on.set()
        wait_for(is_in(store, "a", "completed"))
    assert (store.tasks.get("a").status, store.tasks.get("a").result) == ("completed", True)
    assert (store.tasks.get("b").status, store.tasks.get("b").attempts) == ("pending", 0)


@pytest.mark.parametrize("grace", [dt.timedelta(0), LONG])
def test_what_does_not_end_within_the_grace_is_given_back(store: Store, grace: dt.timedelta) -> None:
    add(store, "t", max_attempts=1)
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def handle(_: Task, context: WorkContext) -> str:
        began.set()
        assert go_on.wait(60)
        ended.set()
        return f"lost: {context.is_lost}"

    with working(store, handle, grace=grace) as worker:
        assert began.wait(60)
        worker.stop()
        if grace:
            # Whoever is in a hurry says it twice.
            worker.stop()
    task = store.tasks.get("t")
    assert (task.status, task.attempts, task.claimed_by) == ("pending", 0, None)
    assert store.tasks.history("t")[-1].reason == "the worker stops"
    go_on.set()
    assert ended.wait(60)
    wait_for(lambda: not worker._contexts())
    assert store.tasks.get("t").result is None
    assert store.audits.verify().ok


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Odd(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


OUTCOMES: dict[str, Callable[[], Any]] = {
    "no JSON": lambda: {1},
    "odd": lambda: Odd(a=1),
    "speechless": lambda: raised(Speechless()),
    "no reason": lambda: raised(GiveUp("")),
    "no reason again": lambda: raised(Retry("")),
    "no time": lambda: raised(Retry(after=-LONG)),
}


def raised(error: Exception) -> None:
    raise error


def test_nothing_that_a_handler_returns_or_raises_ends_its_thread(store: Store) -> None:
    for kind in OUTCOMES:
        add(store, kind, task_type=kind, max_attempts=1)
    add(store, "last", task_type="last")
    with working(store, {**{kind: lambda task, _: OUTCOMES[task.task_type]() for kind in OUTCOMES}, "last": print}):
        wait_for(is_in(store, "last", "completed"))
    ends = {kind: store.tasks.get(kind) for kind in OUTCOMES}
    assert {(task.status, task.exit_reason) for kind, task in ends.items() if kind != "speechless"} == {
        ("failed", "the result was refused")
    }
    assert ends["speechless"].error_message == "Speechless"
    assert ends["odd"].error_message == "RuntimeError"


def test_a_worker_that_finds_one_task_after_the_other_is_stopped_all_the_same(store: Store) -> None:
    class Busy(Worker):
        def _claim(self, free: int) -> int:
            self.stop()
            return free - 1

    Busy(store, print, concurrency=2, poll=LONG).run(signals=False)


def test_a_signal_that_came_just_before_a_wait_is_noticed_soon(store: Store) -> None:
    class Short(queue.SimpleQueue[str]):
        def get(self, block: bool = True, timeout: float | None = None) -> str:
            if block and timeout is not None and timeout > GLANCE:
                raise AssertionError(timeout)
            return super().get(block, timeout)

    worker = Worker(store, print, poll=LONG)
    worker._told = Short()
    stopping = threading.Timer(0.01, worker.stop)
    stopping.start()
    worker.run(signals=False)
    stopping.join()


def test_a_worker_whose_store_was_closed_says_so_and_leaves_no_thread(url: str) -> None:
    with Store.open(url) as store:
        add(store, "t")
        began, go_on = threading.Event(), threading.Event()

        def handle(_: Task, __: WorkContext) -> None:
            began.set()
            assert go_on.wait(60)

        worker = Worker(store, handle, by="closed", poll=SHORT, grace=dt.timedelta(0), concurrency=2)
        caught: list[BaseException] = []

        def run() -> None:
            try:
                worker.run()
            except UsageError as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert began.wait(60)
    thread.join(60)
    assert len(caught) == 1
    go_on.set()
    wait_for(lambda: not any(each.name.startswith("closed") for each in threading.enumerate()))


def test_an_idle_worker_is_woken(store: Store) -> None:
    with working(store, lambda _, __: None, poll=LONG) as worker:
        add(store, "t")
        worker.wake()
        wait_for(is_in(store, "t", "completed"))


def test_a_worker_runs_once(store: Store) -> None:
    with working(store, lambda _, __: None) as worker:
        wait_for(lambda: worker._is_running)
        with pytest.raises(UsageError):
            worker.run()
    with pytest.raises(UsageError):
        worker.run()


def test_signals_stop_a_worker_in_the_main_thread_and_are_put_back(store: Store) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    add(store, "t")

    def handle(_: Task, __: WorkContext) -> None:
        signal.raise_signal(signal.SIGTERM)

    Worker(store, handle, poll=SHORT).run()
    assert store.tasks.get("t").status == "completed"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signals_are_not_asked_for_in_another_thread(store: Store) -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            Worker(store, lambda _, __: None).run(signals=True)
        except UsageError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lease", {"lease": dt.timedelta(0)}),
        ("poll", {"poll": dt.timedelta(0)}),
        ("grace", {"grace": dt.timedelta(seconds=-1)}),
        ("concurrency", {"concurrency": 0}),
        ("concurrency", {"concurrency": True}),
        ("handler", {"handler": 3}),
        ("handler", {"handler": {}}),
        ("handler", {"handler": {"x": None}}),
        ("task_types", {"handler": {"x": print}, "task_types": ["y"]}),
    ],
)
def test_a_worker_has_sane_options(both: list[Store], name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Worker(both[0], **{"handler": print, **options})
    assert caught.value.name == name
