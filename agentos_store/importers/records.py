"""Records that several systems have: users and messages, as the store takes them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """A user; no two of a source have one email address."""

    table: str
    """Where it stands in the source."""
    id: str
    name: str
    email: str | None = None
    api_key_hash: str | None = None
    quota_total: int = 100_000
    quota_used: int = 0
    preferences: dict[str, JSON] | None = None
    created_at: dt.datetime
    updated_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """A message of a session that the same source gives; those of one session come in their order."""

    table: str
    source_key: str
    id: str
    session_id: str
    role: str
    """system, user, assistant or tool."""
    content: JSON
    tool_calls: Any = None
    """A list, or None."""
    tool_call_id: str | None = None
    token_count: int = 0
    metadata: dict[str, JSON] | None = None
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()
