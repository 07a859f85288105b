"""``agentos-store kb``: files that can be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos_store import Store
from agentos_store.cli.consoles import progress_bar
from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import Where, where
from agentos_store.errors import NotFoundError
from agentos_store.importers.files import FilesReport, add_files, find_files, prefix_of, sources_below
from agentos_store.knowledge.models import KbSource
from agentos_store.knowledge.walking import Selection, real_path

app = typer.Typer(help="Files that can be searched.", no_args_is_help=True)

Project = Annotated[str | None, typer.Option(help="The project that the files belong to; without it, none.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]


@app.command()
def add(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files, and directories with Markdown and text files.")],
    project: Project = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Only files that this pattern names, whatever their suffixes; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No file or directory that this pattern names; may be repeated.")
    ] = None,
    no_gitignore: Annotated[bool, typer.Option("--no-gitignore", help="Take what .gitignore files name too.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Look into hidden directories and node_modules too, and past .gitignore.")
    ] = False,
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of files that are not in Unicode, for instance gb18030.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what is known of files that are gone.")] = False,
    dry_run: DryRun = False,
    as_json: AsJSON = False,
) -> None:
    """Make Markdown and text files searchable; only those that changed are indexed anew.

    Exit code 1 when a file could not be brought in. A run that was interrupted is simply repeated.
    """
    selection = Selection(
        include=include or (), exclude=exclude or (), ignore=not (no_gitignore or everything), hidden=everything
    )
    # The files first: a slip in a name should leave no new store behind.
    files = find_files(paths, selection, encoding=encoding)
    store = _open(where(context), dry_run=dry_run)
    try:
        with progress_bar(quiet=as_json) as bar:
            task = bar.add_task("files", total=len(files.found.files))
            report = add_files(
                store,
                files,
                project_id=project,
                prune=prune,
                dry_run=dry_run,
                progress=lambda done, _: bar.update(task, completed=done),
            )
    finally:
        if store is not None:
            store.close()
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    if report.skipped:
        raise typer.Exit(FOUND_WRONG)


@app.command("list")
def list_(
    context: typer.Context,
    project: Annotated[str | None, typer.Option(help="Only this project.")] = None,
    below: Annotated[Path | None, typer.Option(help="Only files in this directory.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that the next one begins.")] = None,
    as_json: AsJSON = False,
) -> None:
    """List the sources, by their paths."""
    prefix = None if below is None else prefix_of(real_path(below))
    with where(context).open() as store:
        page = store.kb.list_sources(project_id=project, prefix=prefix, limit=limit, cursor=cursor)
    if as_json:
        print_json({"items": [source.to_dict() for source in page.items], "next": page.next})
        return
    rows = [(each.source_id, each.source_path, each.indexed_at, each.project_id) for each in page.items]
    print_table(f"Sources ({len(page)})", ["source", "path", "indexed", "project"], rows, whole=["source", "indexed"])
    if page.next is not None:
        echo(f"more: --cursor {page.next}")


@app.command()
def remove(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="Sources, their files, or directories with all their files.")],
    project: Project = None,
    dry_run: DryRun = False,
    as_json: AsJSON = False,
) -> None:
    """Forget files; the files themselves stay."""
    with where(context).open() as store:
        found = {each.source_id: each for name in sources for each in _named(store, name, project)}
        if not dry_run:
            for source_id in found:
                store.kb.delete_source(source_id)
    if as_json:
        removed = [{"source_id": each.source_id, "source_path": each.source_path} for each in found.values()]
        print_json({"removed": removed, "dry_run": dry_run})
    else:
        title = f"{'Would be removed' if dry_run else 'Removed'} ({len(found)})"
        rows = [(each.source_id, each.source_path) for each in found.values()]
        print_table(title, ["source", "path"], rows, whole=["source"])


def _named(store: Store, name: str, project: str | None) -> list[KbSource]:
    """Return the sources that a name on the command line means; NotFoundError when it means none."""
    path = real_path(name)
    for source_path in (name, str(path)):
        if (source := store.kb.find_source(project, source_path)) is not None:
            return [source]
    if store.kb.exists(name):
        return [store.kb.get_source(name)]
    found = list(sources_below(store, path, project))
    if not found:
        raise NotFoundError("source", name)
    return found


def _open(place: Where, *, dry_run: bool) -> Store | None:
    try:
        return place.open(create=not dry_run)
    except NotFoundError:
        if not dry_run:
            raise
        # Nothing is known yet, and a dry run makes no store.
        return None


def _print_report(report: FilesReport) -> None:
    would = "Would be done" if report.is_dry_run else "Files"
    rows = [("added", report.added), ("changed", report.changed), ("unchanged", report.unchanged)]
    rows += [("removed", report.removed), ("not brought in", len(report.skipped))]
    print_table(would, ["", "files"], rows, right=["files"])
    if not report.is_dry_run:
        echo(
            f"chunks: {report.chunks_added:,} added, {report.chunks_removed:,} removed, "
            f"{report.chunks_kept:,} of changed files kept"
        )
    if report.links:
        echo(f"symbolic links that were not followed: {report.links:,}")
    if report.encodings:
        print_table("Read as", ["encoding", "file"], [(encoding, path) for path, encoding in report.encodings])
    if report.skipped:
        print_table("Not brought in", ["file", "why"], report.skipped)
