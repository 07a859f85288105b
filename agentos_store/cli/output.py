"""What commands print: tables for people, JSON for programs, one clear line for an error.

Texts of the store come from anybody. They are shown as they are, never read as markup, and without the characters that
could drive a terminal.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What JSON may hold as it is, but a terminal acts upon, or no encoding has."""


class ReaderGoneError(Exception):
    """Whoever read our output has closed the pipe, as ``head`` does when it has enough."""


def console() -> Console:
    """Return the console for results. It honours NO_COLOR, and shows no colour where nobody looks."""
    from agentos_store.cli.consoles import results

    return results()


def complain(kind: str, message: str) -> None:
    """Print one line about what went wrong."""
    # That nobody reads it, or can, is no reason to end.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{kind}: {visible(message)}\n")
        sys.stderr.flush()


def echo(text: str) -> None:
    """Print lines as they are, but for what could drive a terminal."""
    try:
        sys.stdout.write("\n".join(map(visible, text.removesuffix("\n").split("\n"))) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None


def print_json(value: Any) -> None:
    """Print one JSON document; times as ISO 8601."""
    # What the stream cannot encode it would write in Python's notation, which is no JSON.
    whole = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not whole, indent=2, default=_plain)
    try:
        sys.stdout.write(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print a table; values are text, never markup. Columns named in ``whole`` are never broken into lines.

    Where it does not fit, each row becomes lines of its own, so that no key is cut and no column is a letter wide.
    """
    # Rich takes longer to import than most commands to run, and JSON needs nothing of it.
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headed = any(columns)
    cells = [[visible(shown(value)) for value in row] for row in rows]
    results = console()
    if headed and _width(columns, cells, whole) > results.width:
        _print_records(title, columns, cells)
        return
    table = Table(
        title=Text(visible(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD if headed else box.SIMPLE,
        show_header=headed,
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in cells:
        table.add_row(*map(Text, row))
    results.print(table)


NARROW = 8
"""Columns of a terminal below which a text that is broken into lines cannot be read any more."""


def _width(columns: Sequence[str], cells: Sequence[Sequence[str]], whole: Sequence[str]) -> int:
    """Return how wide the table is at least when it can still be read, with what lies between its columns."""
    from rich.cells import cell_len

    width = 2
    for number, column in enumerate(columns):
        longest = max([cell_len(row[number]) for row in cells], default=0)
        width += max(cell_len(column), longest if column in whole else min(longest, NARROW)) + 1
    return width


def _print_records(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    width = max(map(len, columns))
    lines = [visible(title)]
    for row in cells:
        lines.append("")
        lines += [f"{column:<{width}}  {value}".rstrip() for column, value in zip(columns, row, strict=True)]
    echo("\n".join([*lines, "", ""]))


def shown(value: object) -> str:
    """Return a value as people read it."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def as_text(value: object) -> str:
    """Return a value as people read it, lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else shown(value)


def visible(text: str) -> str:
    """Return the text in one line, without control characters and others that do not show."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


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
