"""``agentos-store health``: whether the database can be worked with, for probes that ask every few seconds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from agentos_store.cli.exits import UNAVAILABLE
from agentos_store.cli.output import AsJSON, echo, print_json
from agentos_store.cli.where import Where, where

if TYPE_CHECKING:
    from agentos_store.engine.vitals import PoolState, Vitals
    from agentos_store.operations.health import Health

OTHER_SCHEMA = 6
"""The exit code where the database answers, and its schema is another one."""


def health(
    context: typer.Context,
    timeout: Annotated[float, typer.Option(help="Seconds until it answers, whatever the database does.")] = 2.0,
    as_json: AsJSON = False,
) -> int:
    """Tell in one line whether the database can be worked with.

    Exit code 0 when it can, 6 when it answers and its schema is another one, 7 when it cannot.
    """
    found = look(where(context), timeout)
    if as_json:
        print_json(asdict(found))
    elif found.ok:
        echo(f"ok: {1000 * (found.latency or 0.0):.1f} ms, revision {found.revision}, writable")
    else:
        # An error of the server may have several lines.
        echo("not ok: " + "; ".join(" ".join(problem.split()) for problem in found.problems))
    if found.ok:
        return 0
    return OTHER_SCHEMA if found.schema_ok is False else UNAVAILABLE


def look(place: Where, timeout: float) -> Health:
    """Open the database, look, and close it; opening may hang too."""
    # Neither the store nor a single model is imported: that would take longer than all the rest.
    from agentos_store.errors import UnavailableError
    from agentos_store.migrate.target import Target
    from agentos_store.operations.health import Checkup
    from agentos_store.settings import Settings
    from agentos_store.store.opening import open_backend

    # A probe initialises and repeats nothing, and what it finds out about a replica is of no use.
    changes = {"auto_migrate": "off", "retries": 0, "read_url": None}
    settings = Settings.load().model_copy(update=changes)
    target = Target.of(place.url, schema=place.schema, settings=settings)
    pools: list[PoolState] = []

    def examine(vitals: Vitals) -> None:
        if target.path is not None:
            if not target.path.exists():
                raise UnavailableError(f"there is no file {target.path}")
            # Asked before the file is opened, which leaves its mark on one that may be somebody else's.
            if not vitals.read(target.revision()):
                vitals.connected = True
                return
        backend = open_backend(target.url, schema=place.schema, settings=settings, engine=None)
        try:
            backend.examine(vitals)
            pools.append(backend.pool_state())
        finally:
            backend.close()

    return Checkup(target.describe(), examine, lambda: pools[0] if pools else None).check(timeout)
