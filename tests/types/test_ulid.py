"""Keys made in Python."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import time

import pytest

from agentos_store.types import Identifier, new_ulid, ulid

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def decoded(key: str) -> tuple[int, int]:
    number = 0
    for digit in key:
        number = number * 32 + DIGITS.index(digit)
    return number >> 80, number & (1 << 80) - 1


def test_a_key_has_26_digits_of_crockfords_and_begins_with_the_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    key = new_ulid()
    assert len(key) == 26
    assert set(key) <= set(DIGITS)
    assert Identifier().check(key, "key") == key
    # Keys of this process may be ahead of the clock by as many milliseconds as it went back or was forked.
    assert before <= decoded(key)[0] <= time.time_ns() // 1_000_000 + 1_000


def test_keys_grow_in_the_order_in_which_they_were_made() -> None:
    keys = [new_ulid() for _ in range(20_000)]
    assert keys == sorted(set(keys))


def test_threads_never_get_the_same_key() -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: [new_ulid() for _ in range(5_000)], range(4)))
    assert all(keys == sorted(keys) for keys in made)
    assert len({key for keys in made for key in keys}) == 20_000


def test_in_one_millisecond_the_random_part_grows_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = ulid._Maker()
    monkeypatch.setattr(maker, "_millisecond", 2**47)
    first, second = decoded(maker.make()), decoded(maker.make())
    assert second == (first[0], first[1] + 1)


def test_a_clock_that_goes_back_is_not_followed() -> None:
    maker = ulid._Maker()
    maker._start(2**47)
    assert decoded(maker.make())[0] == 2**47


def test_a_random_part_that_is_used_up_takes_the_next_millisecond() -> None:
    maker = ulid._Maker()
    maker._start(2**47)
    maker._random = 2**80 - 2
    assert decoded(maker.make()) == (2**47, 2**80 - 1)
    assert decoded(maker.make())[0] == 2**47 + 1


FORK = """
import os
from agentos_store.types import new_ulid, now, ulid, utc_datetime

keys = [new_ulid()]
# As if other threads were at it when the process is forked.
with ulid._lock, utc_datetime._lock:
    reader, writer = os.pipe()
    if os.fork() == 0:
        now()
        os.write(writer, " ".join(new_ulid() for _ in range(100)).encode())
        os._exit(0)
os.close(writer)
print(keys[0], *(new_ulid() for _ in range(100)))
print(os.fdopen(reader).read())
os.wait()
"""


def test_parent_and_child_never_make_the_same_key() -> None:
    run = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True, timeout=60)
    (before, *ours), theirs = (line.split() for line in run.stdout.splitlines())
    assert len(ours) == len(theirs) == 100
    assert theirs == sorted(theirs)
    assert theirs[0] > before
    assert not set(ours) & set(theirs)
