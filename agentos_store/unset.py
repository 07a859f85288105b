"""A parameter that was left out, where None is a value of its own."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Unset(Enum):
    """The type of ``UNSET``."""

    UNSET = "unset"


UNSET = Unset.UNSET
"""Leave the column as it is."""


def given(**values: Any) -> dict[str, Any]:
    """Return the values that were not left out."""
    return {name: value for name, value in values.items() if value is not UNSET}
