"""The turnstile between processes: turns are given in order, limits hold, and the dead hold nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agentos_store.engine.sqlite import turnstile as turnstile_module
from agentos_store.engine.sqlite.filelock import try_lock
from agentos_store.engine.sqlite.turnstile import Turnstile
from agentos_store.errors import LockTimeoutError
from tests.engine.gather import PROCESSES, wait_for


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "x.sqlite"
    path.touch(0o600)
    return path


def is_free(database: Path) -> bool:
    """Ask as another process would: with descriptors of one's own."""
    with Path(f"{database}-turn").open() as turn, Path(f"{database}-next").open() as following:
        return try_lock(following.fileno()) and try_lock(turn.fileno())


def hold(database: Path, seconds: float, ready: Any) -> None:
    turnstile = Turnstile(database)
    turnstile.acquire(10)
    ready.set()
    time.sleep(seconds)
    turnstile.release()
    turnstile.close()


def hammer(database: Path, name: str, start: Any, log: Any) -> None:
    turnstile = Turnstile(database)
    start.wait()
    for _ in range(150):
        turnstile.acquire(20)
        os.write(log, name.encode())
        # Long enough for the others to be waiting when it ends.
        time.sleep(0.001)
        turnstile.release()
    turnstile.close()


def test_a_turn_that_is_over_is_free_for_others(database: Path) -> None:
    turnstile = Turnstile(database)
    turnstile.acquire(1)
    assert not is_free(database)
    turnstile.release()
    assert is_free(database)
    turnstile.close()


def test_two_in_one_process_exclude_each_other(database: Path) -> None:
    """A migration has a turnstile of its own, beside that of an open store."""
    first, second = Turnstile(database), Turnstile(database)
    first.acquire(1)
    with pytest.raises(LockTimeoutError):
        second.acquire(0.05)
    second.release()
    first.release()
    second.acquire(1)
    second.release()
    first.close()
    second.close()


def test_whoever_waits_too_long_is_told_which_process_has_the_turn(database: Path) -> None:
    ready = PROCESSES.Event()
    holder = PROCESSES.Process(target=hold, args=(database, 60, ready))
    holder.start()
    ready.wait(10)
    turnstile = Turnstile(database)
    with pytest.raises(LockTimeoutError) as caught:
        turnstile.acquire(0.1)
    assert caught.value.holder == f"process {holder.pid}"
    assert 0.1 <= caught.value.waited < 5
    turnstile.release()
    # A killed process holds nothing, and the wait that was given up is taken over by the next caller.
    os.kill(holder.pid or 0, signal.SIGKILL)
    turnstile.acquire(5)
    turnstile.release()
    assert is_free(database)
    turnstile.close()
    holder.join(10)


def test_a_wait_that_was_given_up_takes_the_turn_from_nobody(database: Path) -> None:
    first, second = Turnstile(database), Turnstile(database)
    first.acquire(1)
    with pytest.raises(LockTimeoutError):
        second.acquire(0.05)
    second.release()
    first.release()
    wait_for(lambda: is_free(database))
    first.close()
    second.close()


def test_a_caller_takes_over_the_place_of_one_who_gave_up(database: Path) -> None:
    first, second = Turnstile(database), Turnstile(database)
    first.acquire(1)
    for _ in range(3):
        with pytest.raises(LockTimeoutError):
            second.acquire(0.02)
        second.release()
    waiting = threading.Thread(target=second.acquire, args=(10,))
    waiting.start()
    first.release()
    waiting.join(10)
    assert not is_free(database)
    second.release()
    assert is_free(database)
    first.close()
    second.close()


def test_it_can_be_closed_while_a_wait_that_was_given_up_goes_on(database: Path) -> None:
    first, second = Turnstile(database), Turnstile(database)
    first.acquire(1)
    with pytest.raises(LockTimeoutError):
        second.acquire(0.02)
    second.release()
    second.close()
    first.release()
    wait_for(lambda: is_free(database))
    first.close()


def test_letting_go_of_what_was_not_held_is_no_error(database: Path) -> None:
    turnstile = Turnstile(database)
    turnstile.release()
    turnstile.acquire(1)
    turnstile.release()
    turnstile.release()
    assert is_free(database)
    turnstile.close()


def test_of_three_processes_that_hammer_each_gets_its_share(database: Path) -> None:
    start = PROCESSES.Barrier(3)
    log = database.with_name("log")
    processes = [PROCESSES.Process(target=hammer_into, args=(database, name, start, log)) for name in ("a", "b", "c")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    turns = log.read_text()
    assert len(turns) == 450
    # As long as all three take part, each has at least a tenth of the turns.
    together = turns[: min(turns.rindex(name) for name in "abc") + 1]
    assert min(together.count(name) for name in "abc") >= len(together) / 10


def hammer_into(database: Path, name: str, start: Any, log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    hammer(database, name, start, descriptor)
    os.close(descriptor)


def is_in_line(database: Path) -> bool:
    with Path(f"{database}-next").open() as following:
        return not try_lock(following.fileno())


def test_a_busy_process_may_take_the_turn_again_before_whoever_is_in_line(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile_module, "PAUSE", 60.0)
    monkeypatch.setattr(turnstile_module, "RUN", 5.0)
    busy, patient = Turnstile(database), Turnstile(database)
    busy.acquire(1)
    busy.release()
    busy.acquire(1)
    waiting = threading.Thread(target=give_up, args=(patient,))
    waiting.start()
    wait_for(lambda: is_in_line(database))
    for _ in range(3):
        busy.release()
        busy.acquire(0)
    waiting.join(10)
    busy.release()
    patient.close()
    busy.close()


def give_up(turnstile: Turnstile) -> None:
    with pytest.raises(LockTimeoutError):
        turnstile.acquire(0.3)
    turnstile.release()


def hand_over(holder: Turnstile, other: Turnstile, database: Path) -> None:
    """Let the other wait for the holder, get its turn and give it back; close both."""
    waiting = threading.Thread(target=other.acquire, args=(10,))
    waiting.start()
    wait_for(lambda: is_in_line(database))
    holder.release()
    waiting.join(10)
    assert not is_free(database)
    other.release()
    assert is_free(database)
    holder.close()
    other.close()


@pytest.mark.parametrize("pause", [0.0, 60.0], ids=["idle", "busy"])
def test_a_process_that_does_not_come_back_holds_nobody_up(
    database: Path, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """Whoever is killed in its run does not come back either; it has nothing locked then."""
    monkeypatch.setattr(turnstile_module, "PAUSE", pause)
    first, second = Turnstile(database), Turnstile(database)
    first.acquire(1)
    first.release()
    first.acquire(1)
    hand_over(first, second, database)


@pytest.mark.parametrize("mark", [b"", b"1", b"1           what is this", b"1           99999999999.000000  "])
def test_a_mark_that_makes_no_sense_holds_nobody_up(database: Path, mark: bytes) -> None:
    first, second = Turnstile(database), Turnstile(database)
    first.acquire(1)
    Path(f"{database}-turn").write_bytes(mark)
    hand_over(first, second, database)


def test_whoever_goes_on_with_its_run_is_the_holder_again(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile_module, "PAUSE", 60.0)
    monkeypatch.setattr(turnstile_module, "RUN", 60.0)
    busy = Turnstile(database)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getpid", lambda: 1)
        other = Turnstile(database)
    for each in (busy, busy, other):
        each.acquire(1)
        each.release()
    assert busy.holder() == "process 1"
    busy.acquire(1)
    assert other.holder() == f"process {os.getpid()}"
    busy.release()
    other.close()
    busy.close()
