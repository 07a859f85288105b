"""Text files, brought in as sources of knowledge: each as a whole or not at all, and only those that changed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.knowledge.chunking import MAX_TOKENS, require_chunker
from agentos_store.knowledge.models import KbSource
from agentos_store.knowledge.reading import check_encoding, read_text_file
from agentos_store.knowledge.walking import Selection, Walk, real_path, walk
from agentos_store.store.blocking import Store

Progress = Callable[[int, int], object]
"""Told after each file how many are done, and of how many."""


@dataclass(slots=True)
class FilesReport:
    """What became of the files, and of the sources that are no files any more."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    """Known by their hashes: they were read, but not cut, and nothing was written."""
    removed: int = 0
    """Sources whose files are gone."""
    chunks_added: int = 0
    chunks_kept: int = 0
    """Chunks of changed files whose text and heading stayed."""
    chunks_removed: int = 0
    """Chunks of changed files that are not in them any more."""
    links: int = 0
    """Symbolic links, which were not followed."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Files and directories that could not be brought in, and why."""
    encodings: list[tuple[str, str]] = field(default_factory=list)
    """Files that are no plain UTF-8, and what they were read as."""
    is_dry_run: bool = False
    """Whether nothing was written: then this is what would have been done, and chunks are not counted."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            **{name: getattr(self, name) for name in ("added", "changed", "unchanged", "removed", "links")},
            "chunks": {"added": self.chunks_added, "kept": self.chunks_kept, "removed": self.chunks_removed},
            "skipped": [{"path": path, "why": why} for path, why in self.skipped],
            "encodings": [{"path": path, "encoding": encoding} for path, encoding in self.encodings],
            "dry_run": self.is_dry_run,
        }


@dataclass(frozen=True, slots=True)
class Files:
    """The files that were found where somebody looked; making it touches no store."""

    roots: Sequence[Path]
    found: Walk
    encoding: str | None
    max_tokens: int


def find_files(
    paths: Sequence[str | os.PathLike[str]],
    selection: Selection | None = None,
    *,
    encoding: str | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Files:
    """Find the files of these paths; see ``walk``. ``encoding`` is that of files that are not in Unicode.

    Raises UsageError when what cuts texts is not installed.
    """
    require_chunker()
    check_encoding(encoding)
    return Files([*map(real_path, paths)], walk(paths, selection), encoding, max_tokens)


def add_files(
    store: Store | None,
    files: Files,
    *,
    project_id: str | None = None,
    prune: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> FilesReport:
    """Make each file a source, known by its real path, and bring those up to date that changed.

    Each file is one transaction. What cannot be read is reported, and its source stays as it is. ``prune`` removes the
    sources below the paths whose files are gone. Without a store, for a dry run, every file is new. Raises
    NotFoundError for a project that does not exist.
    """
    if store is not None and project_id is not None:
        store.projects.get(project_id)
    report = FilesReport(links=files.found.links, is_dry_run=dry_run or store is None)
    report.skipped += [(str(path), why) for path, why in files.found.unreadable]
    total = len(files.found.files)
    for number, path in enumerate(files.found.files, 1):
        try:
            _add(store, path, files, project_id, report)
        except NotFoundError:
            report.skipped.append((str(path), "is gone since it was found"))
        except InvalidValueError as error:
            report.skipped.append((str(path), error.why))
        if progress is not None:
            progress(number, total)
    if prune and store is not None:
        for root in files.roots:
            _prune(store, root, project_id, report)
    return report


def prefix_of(folder: Path) -> str:
    """Return what the paths of a directory's files begin with."""
    return str(folder).removesuffix(os.sep) + os.sep


def sources_below(store: Store, folder: Path, project_id: str | None) -> Iterator[KbSource]:
    """Yield the sources of a directory's files, in this project or in none."""
    prefix = prefix_of(folder)
    for source in store.kb.iterate_sources(project_id=project_id, source_type="file", prefix=prefix):
        if source.project_id == project_id:
            yield source


def _add(store: Store | None, path: Path, files: Files, project_id: str | None, report: FilesReport) -> None:
    file = read_text_file(path, encoding=files.encoding)
    content_hash = file.content_hash(max_tokens=files.max_tokens)
    known = None if store is None else store.kb.find_source(project_id, str(path))
    if known is not None and known.content_hash == content_hash and known.indexed_at is not None:
        report.unchanged += 1
    elif store is None or report.is_dry_run:
        report.added += known is None
        report.changed += known is not None
    else:
        done = store.kb.refresh(
            source_path=str(path),
            content_hash=content_hash,
            chunks=file.chunks(max_tokens=files.max_tokens),
            project_id=project_id,
        )
        report.added += done.is_new
        report.changed += not done.is_new
        report.chunks_added += done.added
        report.chunks_kept += done.kept
        report.chunks_removed += done.removed
    if file.encoding != "utf-8":
        report.encodings.append((str(path), file.encoding))


def _prune(store: Store, root: Path, project_id: str | None, report: FilesReport) -> None:
    for source in [each for each in sources_below(store, root, project_id) if _is_gone(each.source_path)]:
        if not report.is_dry_run:
            # Somebody else may have removed it.
            with contextlib.suppress(NotFoundError):
                store.kb.delete_source(source.source_id)
        report.removed += 1


def _is_gone(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        # It may be there, behind a directory that may not be read now.
        return False
