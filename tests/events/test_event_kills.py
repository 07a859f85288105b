"""Processes that are killed while they log many events: each list is there whole or not at all, and followed once."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import takewhile
from typing import Any

from agentos_store import Store
from tests.engine.gather import PROCESSES

KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "3"))
MANY = 300


def log_until_killed(url: str, writer: int, acknowledged: Any) -> None:
    """Log lists, and tell the number of each after the call has returned."""
    store = Store.open(url)
    acknowledged.send(-1)
    number = 0
    while True:
        one: dict[str, Any] = {"event_type": "x", "agent_id": f"w{writer}", "seq": number}
        store.events.log_many([{**one, "data": n} for n in range(MANY)])
        acknowledged.send(number)
        number += 1


def test_a_list_of_a_killed_writer_is_there_whole_or_not_at_all(store: Store, url: str) -> None:
    last = []
    for writer in range(KILLS):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=log_until_killed, args=(url, writer, sender), daemon=True)
        process.start()
        sender.close()
        receiver.recv()
        time.sleep(random.uniform(0.0, 0.1))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        last.append(-1)
        try:
            while receiver.poll():
                last[-1] = receiver.recv()
        except (EOFError, OSError):
            pass
    # Nothing is in the way of the next one, and what the dead have begun is over before it comes.
    store.events.log("last")
    with store.events.subscribe(from_start=True) as subscription:
        events = list(takewhile(lambda event: event.event_type != "last", subscription))
    for writer, number in enumerate(last):
        found = [(event.seq, event.data) for event in events if event.agent_id == f"w{writer}"]
        lists = len(found) // MANY
        assert found == [(seq, n) for seq in range(lists) for n in range(MANY)]
        assert lists in {number + 1, number + 2}
