"""What comes of several items that say the same: nothing that any of them knows is lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentos_store.memory.models import RETENTIONS, MemoryItem


def union(*lists: Iterable[Any]) -> list[Any]:
    """Return every element once, in the order in which they come; they may be any JSON."""
    found: list[Any] = []
    known: set[Any] = set()
    for each in (each for one in lists for each in one):
        if isinstance(each, str):
            if each in known:
                continue
            known.add(each)
        # True is not 1 here, nor 1 a 1.0.
        elif any(type(each) is type(other) and each == other for other in found):
            continue
        found.append(each)
    return found


def learnt(item: MemoryItem, again: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes in an item that is remembered again with these values."""
    changes: dict[str, Any] = {
        "tags": union(item.tags, again["tags"]),
        "sources": union(item.sources, again["sources"]),
        "retention_type": stronger([item.retention_type, again["retention_type"]]),
        "expires_at": later([item.expires_at, again["expires_at"]]),
        "auto_cleanup": item.auto_cleanup and again["auto_cleanup"],
    }
    if item.project_id is None:
        changes["project_id"] = again["project_id"]
    if again["confidence"] > item.confidence:
        changes |= {"confidence": again["confidence"], "decayed_at": again["decayed_at"]}
    return changes


def merged(items: Sequence[MemoryItem]) -> dict[str, Any]:
    """Return what the first item becomes when it takes the others in."""
    first = items[0]
    surest = max(items, key=lambda item: item.confidence)
    used = [item.last_used_at for item in items if item.last_used_at is not None]
    return {
        "tags": union(*(item.tags for item in items)),
        "sources": union(*(item.sources for item in items)),
        "confidence": surest.confidence,
        "decayed_at": surest.decayed_at,
        "use_count": sum(item.use_count for item in items),
        "last_used_at": max(used, default=None),
        "retention_type": stronger([item.retention_type for item in items]),
        "expires_at": later([item.expires_at for item in items]),
        "auto_cleanup": all(item.auto_cleanup for item in items),
        "project_id": next((item.project_id for item in items if item.project_id is not None), first.project_id),
    }


def stronger(retentions: Iterable[str]) -> str:
    """Return the retention that keeps longest."""
    return max(retentions, key=RETENTIONS.index)


def later(times: Sequence[dt.datetime | None]) -> dt.datetime | None:
    """Return the last of the times, of which None is never."""
    known = [time for time in times if time is not None]
    return max(known) if len(known) == len(times) else None
