"""``agentos-store demo``: the main job from beginning to end, on a small registry made for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from agentos_store.cli import audit, database, imports, lineage, status, tasks
from agentos_store.cli.output import console
from agentos_store.cli.where import Where
from agentos_store.errors import InvalidValueError
from agentos_store.testing.registries import make_registry

MARK = ".agentos-store-demo"
"""Stands in a folder that the demo made, and may therefore clear."""


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the demo puts its files; made anew each time.")] = Path("demo"),
) -> None:
    """Make a small AgentOS registry, import it into a new SQLite database, and look at it."""
    _clear(folder)
    registry = folder / "registry-v25.sqlite"
    make_registry(registry, tasks=24)
    place = Where(f"sqlite:///{folder / 'store.sqlite'}", None)
    context.obj = place

    _say(f"agentos-store --url {place.url} db upgrade")
    database.upgrade(context)
    _say(f"agentos-store --url {place.url} import agentos {registry}")
    imports.agentos(context, registry)
    _say(f"agentos-store --url {place.url} status")
    status.status(context)
    _say(f"agentos-store --url {place.url} tasks list --oldest --limit 8")
    tasks.list_(context, limit=8, oldest=True)
    with place.open() as store:
        # The task that has most in common with others is the one worth drawing.
        links: dict[str, int] = {}
        for link in store.lineage.iterate():
            links[link.task_id] = links.get(link.task_id, 0) + len(store.lineage.trace(link.ref_id, kind=link.kind))
    chosen = max(links, key=lambda task_id: (links[task_id], task_id))
    _say(f"agentos-store --url {place.url} tasks show {chosen}")
    tasks.show(context, chosen)
    _say(f"agentos-store --url {place.url} lineage {chosen}")
    lineage.lineage(context, chosen)
    _say(f"agentos-store --url {place.url} audit verify")
    audit.verify(context)
    console().print(f"\nThe files are in {folder}; try the commands above on them.", markup=False)


def _clear(folder: Path) -> None:
    if folder.exists():
        if not (folder / MARK).exists():
            raise InvalidValueError("folder", f"{folder} is there and was not made by the demo")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def _say(command: str) -> None:
    console().print(f"\n$ {command}", style="bold green", markup=False, soft_wrap=True)
