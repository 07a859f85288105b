"""What the tests of leases share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentos_store import Settings, Store

Opened = Callable[..., Store]


@pytest.fixture
def open_store(url: str) -> Iterator[Opened]:
    """Open a store of the test's database with settings of its own."""
    with contextlib.ExitStack() as stack:

        def open_(**settings: Any) -> Store:
            return stack.enter_context(Store.open(url, settings=Settings.load(**settings)))

        yield open_
