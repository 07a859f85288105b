"""``agentos-store tail``: the newest events, and those that come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from agentos_store import Store
from agentos_store.cli.output import AsJSON, as_text, echo, print_json, print_table, short, shown
from agentos_store.cli.where import where
from agentos_store.events.models import Event

_COLUMNS = ("at", "severity", "type", "channel", "agent", "data")


def tail(
    context: typer.Context,
    n: Annotated[int, typer.Option("-n", "--lines", help="How many of the newest events.")] = 20,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only this channel: progress, control or monitor.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only this severity: info, warning, error or critical.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with the events that come.")] = False,
    bookmark: Annotated[
        str | None, typer.Option(help="Go on behind this one, of a line of --follow --json with the same filters.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="End --follow when nothing has come for so many seconds.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Show the newest events, the newest last; with --follow also those that come, until it is interrupted.

    With --json it prints one document, and with --follow a line for each event, which carries a bookmark.
    """
    filters = {"agent_id": agent, "session_id": session, "task_id": task, "channel": channel, "severity": severity}
    with where(context).open() as store:
        if follow or bookmark is not None:
            waits = timeout if follow else 0
            for event in _follow(store, n, bookmark, waits, {**filters, "event_types": type_}):
                echo(_json_line(event) if as_json else _line(event))
            return
        found = store.events.tail(n=n, event_type=type_, **filters)
    if as_json:
        print_json([event.to_dict() for event in found])
    else:
        rows = [_cells(event) for event in found]
        print_table(f"Events ({len(found)})", _COLUMNS, rows, whole=["at", "severity"])


def _follow(
    store: Store, n: int, bookmark: str | None, timeout: float | None, filters: dict[str, Any]
) -> Iterator[Event]:
    with store.events.subscribe(bookmark, timeout=timeout, **filters) as subscription:
        known: set[str] = set()
        if bookmark is None:
            # "Now" was settled first, so between what there is and what comes nothing is missed.
            newest = dict(filters)
            found = store.events.tail(n=n, event_type=newest.pop("event_types"), **newest)
            known = {event.event_id for event in found}
            yield from found
        for event in subscription:
            if event.event_id not in known:
                yield event


def _cells(event: Event) -> tuple[object, ...]:
    text = "" if event.data is None else short(as_text(event.data))
    return event.created_at, event.severity, event.event_type, event.channel, event.agent_id, text


def _line(event: Event) -> str:
    return "  ".join(shown(cell) for cell in _cells(event) if cell is not None)


def _json_line(event: Event) -> str:
    # In ASCII, so that no character of a text ends the line for whoever reads it.
    return json.dumps({**event.to_dict(), "bookmark": event.bookmark}, default=lambda moment: moment.isoformat())
