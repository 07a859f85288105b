"""Keys for rows that had numbers: a ULID of the row's time and of what tells it from all other rows."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Final

from agentos_store.importers.times import EPOCH

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


def derived_ulid(moment: dt.datetime, *parts: str) -> str:
    """Return the same ULID for the same time and texts, on every run and every machine."""
    told = "".join(f"{len(part)}:{part}" for part in parts)
    random = int.from_bytes(hashlib.sha256(told.encode()).digest()[:10], "big")
    milliseconds = max((moment - EPOCH) // _MILLISECOND, 0) & ((1 << 48) - 1)
    number = milliseconds << 80 | random
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
