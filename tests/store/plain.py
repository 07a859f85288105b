"""What came of a call, without what differs from run to run: keys that were drawn, times, numbers of the database."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from agentos_store import StoreError
from agentos_store.base import Base
from agentos_store.page import Page
from agentos_store.types import UTCDateTime

OWN = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b|\b[0-9a-f]{64}\b|\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?|txid-\d+")
"""Keys that were drawn, hashes over them, and times."""

OF_THE_PLACE = {
    # Numbers of transactions, identities that a failed try has used, how long something took, where the index stands.
    "duration",
    "transaction_id",
    "position",
    "audit_id",
    "lineage_id",
    "dependency_id",
    "artifact_id",
    "document_id",
    "acquisition_id",
    "unindexed_from",
}


def plain(value: Any) -> Any:
    """Return a value that equals that of the same call on another database."""
    if isinstance(value, Base):
        columns = [
            c for c in value.table().columns if not isinstance(c.type, UTCDateTime) and c.name not in OF_THE_PLACE
        ]
        return {c.name: plain(getattr(value, "metadata_" if c.name == "metadata" else c.name)) for c in columns}
    if isinstance(value, Page):
        return [plain(each) for each in value.items], value.next is None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in OF_THE_PLACE]
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, str):
        return OWN.sub("…", value)
    if isinstance(value, dt.datetime | dt.timedelta):
        return "…"
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, AbstractSet):
        return sorted(map(plain, value), key=repr)
    # What is a sequence beside text, for messages that were just added are no list.
    return [plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, bytes) else value


def outcome(call: Callable[[], Any]) -> Any:
    """Return what came of a call: a plain result, or the kind of the error and what it says."""
    try:
        return plain(call())
    except StoreError as error:
        return type(error).__name__, OWN.sub("…", str(error))
