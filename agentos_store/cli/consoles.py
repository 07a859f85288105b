"""Consoles: how results, errors and progress reach a terminal, a pipe or a log.

They are apart from the rest of the output, for Rich takes longer to import than most commands to run.
"""

from __future__ import annotations

import os
import shutil
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentos_store.cli.output import ReaderGoneError

WIDE = 200
"""Columns for whoever reads through a pipe, where a line that is broken in two is hard to search."""


class _Results(Console):
    def on_broken_pipe(self) -> None:
        raise ReaderGoneError


class _Errors(Console):
    def on_broken_pipe(self) -> None:
        """Go on: that nobody reads the progress of an import is no reason to end it."""
        self.quiet = True


def results() -> Console:
    """Return the console for results.

    NO_COLOR switches colours off on a terminal, FORCE_COLOR switches them on in a pipe, and of the two NO_COLOR wins.
    """
    return _Results(
        highlight=False,
        markup=False,
        emoji=False,
        # As wide as COLUMNS says, or the terminal.
        width=shutil.get_terminal_size((WIDE, 0)).columns,
        # None leaves it to FORCE_COLOR.
        force_terminal=sys.stdout.isatty() if os.environ.get("NO_COLOR") else None,
    )


def aside() -> Console:
    """Return the console for errors and progress. A bar that moves is for a terminal, whatever FORCE_COLOR says."""
    return _Errors(stderr=True, highlight=False, markup=False, emoji=False, force_terminal=sys.stderr.isatty())


def progress_bar(*, quiet: bool) -> Progress:
    """Return a bar for a terminal; in a log it would be noise."""
    shown = aside()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=shown,
        disable=quiet or not shown.is_terminal,
    )
