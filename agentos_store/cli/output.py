"""What commands print: tables for people, JSON for programs, one clear line for an error."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def console() -> Console:
    """Return the console for results. It honours NO_COLOR, and shows no colour where nobody looks."""
    return Console(highlight=False)


def errors() -> Console:
    """Return the console for errors and progress."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document; times as ISO 8601."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print a table; values are text, never markup. Columns named in ``whole`` are never broken into lines."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*(escape(shown(value)) for value in row))
    console().print(table)


def shown(value: object) -> str:
    """Return a value as people read it."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def escape(text: str) -> str:
    """Return the text so that rich shows it as it is, without control characters that could drive the terminal."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return visible.replace("\\", "\\\\").replace("[", "\\[")


def short(text: str, width: int = 60) -> str:
    """Return the beginning of a text that is too long for a column."""
    return text if len(text) <= width else text[: width - 1] + "…"


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"


def _plain(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value)
