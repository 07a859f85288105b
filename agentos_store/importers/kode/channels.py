"""An agent's events: its three channels, each in the order of its file, put together by time."""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from typing import Final

from agentos_store.importers.event_words import event_type_of, severity_of
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.events import KIND, lines_of
from agentos_store.importers.kode.files import Tree, shown
from agentos_store.importers.kode.item import moment_of
from agentos_store.importers.kode.records import AgentRecord, EventRecord
from agentos_store.importers.problems import Repair

_MOST: Final = 2**63

Placed = tuple[dt.datetime, int, EventRecord]
"""An event behind what it is put in its place by: its time, and the cursor."""


def read_events(tree: Tree, record: AgentRecord) -> Iterator[EventRecord]:
    """Give the events by time, then by cursor; a channel's own order is never changed, even where its clock goes back.

    The files are read while the events are taken, so that it does not matter how many there are.
    """
    with ExitStack() as stack:
        channels = [
            stack.enter_context(closing(_channel(tree, record, channel, counts.files)))
            for channel, counts in record.events.items()
        ]
        for _, _, event in heapq.merge(*channels, key=lambda placed: placed[:2]):
            yield event


def _channel(tree: Tree, record: AgentRecord, channel: str, files: list[str]) -> Generator[Placed]:
    before = record.created_at
    with closing(lines_of(tree, files)) as lines:
        for digest, line in lines:
            event, bookmark = line["event"], line.get("bookmark")
            assert isinstance(event, dict)
            repairs: list[str] = []
            if not isinstance(bookmark, dict):
                bookmark = {}
                repairs.append("bookmark: it is missing, so the event has no number")
            moment = moment_of(bookmark.get("timestamp")) or moment_of(event.get("timestamp"))
            if moment is None:
                moment = before
                repairs.append("timestamp: it is missing, so that of the event before was taken")
            before = moment
            event_type, wrong = event_type_of(event.get("type"))
            if wrong is not None:
                repairs.append(f"type: {wrong}")
            severity, wrong = severity_of(event.get("severity"))
            # It says 'warn', which is no fault.
            if wrong is not None and event.get("severity") != "warn":
                repairs.append(f"severity: {wrong}")
            cursor, seq = _number(line.get("cursor")), _number(bookmark.get("seq"))
            made = EventRecord(
                agent_id=record.agent_id,
                channel=channel,
                digest=digest.hex(),
                seq=seq,
                event_type=event_type,
                severity=severity,
                data=event,
                created_at=moment,
                repairs=tuple(Repair(KIND, shown(f"{files[0]} {cursor}"), what) for what in repairs),
            )
            yield moment, cursor or seq or 0, made


def _number(found: JSON) -> int | None:
    if isinstance(found, int) and not isinstance(found, bool) and -_MOST <= found < _MOST:
        return found
    return None
