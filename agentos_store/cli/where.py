"""Which database a command is about."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from agentos_store import Store


@dataclass(frozen=True, slots=True)
class Where:
    """The database that was named on the command line, if one was."""

    url: str | None
    schema: str | None

    def open(self) -> Store:
        """Open the store."""
        return Store.open(self.url, schema=self.schema)


def where(context: typer.Context) -> Where:
    """Return the database of a command."""
    found = context.obj
    assert isinstance(found, Where)
    return found
