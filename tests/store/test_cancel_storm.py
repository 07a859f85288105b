"""Calls that are cancelled at any moment, many at once: each is wholly there or not at all, and nothing is held."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from agentos_store.store import asynchronous
from tests.store.storm import hold, weather

CALLS = int(os.environ.get("AGENTOS_STORE_CANCELLATIONS", "480"))


@pytest.mark.usefixtures("own_transactions_only")
def test_a_storm_of_cancellations_leaves_nothing_half_done_and_nothing_behind(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes, wrong = weather(url, CALLS, random.Random())
    assert wrong == []
    told = list(outcomes.values())
    # It was a storm: neither all came through nor none.
    assert CALLS // 10 < told.count("cancelled") < CALLS * 9 // 10
    assert not [record for record in caplog.records if record.name.startswith(("asyncio", "concurrent"))]


def test_a_connection_that_is_forgotten_when_its_call_is_cancelled_is_found_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[Callable[[Any], object], Future[Any]]] = []

    async def obtain(self: Any, function: Callable[[], Any], give_back: Callable[[Any], object]) -> Any:
        obtained = asynchronous._submit(self._threads, function)
        try:
            return await asyncio.wrap_future(obtained)
        except asyncio.CancelledError:
            forgotten.append((give_back, obtained))
            raise

    def mend() -> None:
        for give_back, obtained in forgotten:
            obtained.add_done_callback(partial(asynchronous._give_back, give_back))

    monkeypatch.setattr(asynchronous._Hop, "obtain", obtain)
    _, wrong = weather(url, 120, random.Random(1), patience=0.3, mend=mend)
    assert forgotten
    held = "the queue of writers is held" if url.startswith("sqlite") else "connections: "
    assert any(each.startswith(held) for each in wrong), wrong


def test_a_transaction_that_keeps_what_was_done_before_its_cancellation_is_found_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(self: Any, *, commit: bool) -> None:
        del commit
        await self._hop.finish(self._runner.end, commit=True)

    monkeypatch.setattr(asynchronous._InTransaction, "end", end)
    _, wrong = weather(url, 480, random.Random(1), kinds=[hold])
    assert any("half done" in each for each in wrong)
