"""Events are read in the order of transactions."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_transactions_only(own_transactions_only: None) -> None:
    """No test here is held back by those that run beside it."""
