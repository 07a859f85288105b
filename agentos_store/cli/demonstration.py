"""``agentos-store demo``: the main job from beginning to end, on a small registry made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import URL

from agentos_store.cli import audit, database, dependencies, imports, inbox, lineage, status, tasks
from agentos_store.cli.output import console, echo, visible
from agentos_store.cli.where import Where
from agentos_store.errors import InvalidValueError
from agentos_store.testing.registries import make_registry

MARK = ".agentos-store-demo"
"""Stands in a folder that the demo made, and whose files it may therefore make anew."""

REGISTRY = "registry-v25.sqlite"

STORE = "store.sqlite"


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the demo puts its files; made anew each time.")] = Path("demo"),
) -> None:
    """Make a small AgentOS registry, import it into a new SQLite database, and look at it."""
    _clear(folder)
    registry = folder / REGISTRY
    make_registry(registry, tasks=24)
    url = URL.create("sqlite", database=str(folder / STORE))
    place = context.obj = Where(url, None)

    _say(f"agentos-store --url {url} db upgrade")
    database.upgrade(context)
    _say(f"agentos-store --url {url} import agentos {registry}")
    imports.agentos(context, registry)
    _say(f"agentos-store --url {url} status")
    status.status(context)
    _say(f"agentos-store --url {url} tasks list --oldest --limit 8")
    tasks.list_(context, limit=8, oldest=True)
    with place.open() as store:
        # The task that has most in common with others is the one worth drawing.
        links: dict[str, int] = {}
        for link in store.lineage.iterate():
            links[link.task_id] = links.get(link.task_id, 0) + len(store.lineage.trace(link.ref_id, kind=link.kind))
    chosen = max(links, key=lambda task_id: (links[task_id], task_id))
    _say(f"agentos-store --url {url} tasks show {chosen}")
    tasks.show(context, chosen)
    _say(f"agentos-store --url {url} lineage {chosen}")
    lineage.lineage(context, chosen)
    _say(f"agentos-store --url {url} tasks graph {chosen} --depth 2")
    dependencies.graph(context, chosen, depth=2)
    _say(f"agentos-store --url {url} inbox backlog")
    inbox.backlog(context)
    _say(f"agentos-store --url {url} audit verify")
    audit.verify(context)
    echo(f"\nThe files are in {folder}; try the commands above on them.")


def _clear(folder: Path) -> None:
    """Make the folder, or remove what an earlier demo put into it, and nothing else."""
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists()):
            raise InvalidValueError("folder", f"{folder} is there and was not made by the demo")
        beside = ("", "-wal", "-shm", "-journal", "-next", "-turn")
        for name in (REGISTRY, *(f"{STORE}{ending}" for ending in beside)):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _say(command: str) -> None:
    console().print(f"\n$ {visible(command)}", style="bold green", soft_wrap=True)
