"""Connections that are cut while events are logged, at whatever moment: none is there twice, none is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from agentos_store import Settings, Store
from tests.postgresql.test_server_faults import Opened, pool_of

CUTS = int(os.environ.get("AGENTOS_STORE_CUTS", "9"))
"""In all, one of each kind after the other; 200 in the long form."""

DONE = b"c\0\0\0\4"
"""The message of the protocol that ends a stream of rows, and so commits them."""

INSERT = b"INTO public.events"

MANY = 1100
"""More than one message of the stream."""

LATE = b"monitor"
"""What only the last rows of a long list hold."""


def one(store: Store, call: int, *, is_keyed: bool) -> None:
    event = store.events.log("x", data=call * MANY, event_id=f"e{call}" if is_keyed else None)
    assert event.data == call * MANY


def many(store: Store, call: int, *, is_keyed: bool, count: int = MANY) -> None:
    rows = (
        {"event_type": "x", "data": call * MANY + n, "channel": "monitor" if n > MANY - 50 else "progress"}
        for n in range(count)
    )
    keyed = ({**row, "event_id": f"e{row['data']}"} for row in rows)
    assert store.events.log_many(keyed if is_keyed else rows) == count


def few(store: Store, call: int, *, is_keyed: bool) -> None:
    many(store, call, is_keyed=is_keyed, count=5)


KINDS: dict[str, tuple[Callable[..., None], int, bool, bytes]] = {
    "one, after its commit": (one, 1, True, INSERT),
    "one, before it": (one, 1, False, INSERT),
    "few, after their commit": (few, 5, True, INSERT),
    "few, before it": (few, 5, False, INSERT),
    "many, after their commit": (many, MANY, True, DONE),
    "many, before they begin": (many, MANY, False, b"COPY "),
    "many, before their rows": (many, MANY, True, b"COPY "),
    "many, amid their rows": (many, MANY, False, LATE),
    "many, before their end": (many, MANY, False, DONE),
}


def test_no_event_is_doubled_or_lost_by_a_cut(open_store: Opened, proxy: Any) -> None:
    store = open_store(proxy.url)
    expected: list[int] = []
    for number in range(CUTS):
        name = list(KINDS)[number % len(KINDS)]
        call, count, delivers, mark = KINDS[name]
        # The text of a statement that is prepared travels once for each connection.
        pool_of(store).dispose()
        (proxy.cut_answer_to if delivers else proxy.cut_before)(mark)
        call(store, number, is_keyed=number // len(KINDS) % 2 == number % 2)
        assert proxy.cuts == number + 1, name
        expected += range(number * MANY, number * MANY + count)
    # Not followed, for transactions of other tests on the server would be waited for.
    assert [event.data for event in store.events.iterate()] == expected


def test_a_list_whose_second_try_is_cut_too_is_there_once(url: str, proxy: Any) -> None:
    armed: list[bytes] = []

    def cut_again(*_: object) -> None:
        if armed:
            proxy.cut_answer_to(armed.pop())

    with Store.open(proxy.url, settings=Settings.load(retry_base=0.01), on_retry=cut_again) as store:
        for first, cut in ((DONE, proxy.cut_answer_to), (DONE, proxy.cut_before), (LATE, proxy.cut_before)):
            pool_of(store).dispose()
            # The second try first counts what the first one has written.
            armed[:] = [INSERT, b"count(*)"]
            before = store.events.count(), proxy.cuts
            cut(first)
            many(store, before[0], is_keyed=False)
            assert store.events.count() == before[0] + MANY
            assert proxy.cuts > before[1] + 1
