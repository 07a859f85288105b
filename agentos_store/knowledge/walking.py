"""Finding the text files of a directory: those that a person wrote and would want to find again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentos_store.errors import InvalidValueError, NotFoundError, UnavailableError
from agentos_store.knowledge.ignoring import (
    GIT,
    NAME,
    Patterns,
    ignore_files_above,
    is_ignored,
    parse_patterns,
    read_ignore_file,
)
from agentos_store.knowledge.reading import MARKDOWN, PLAIN

SUFFIXES = MARKDOWN | PLAIN

NEVER_MEANT = frozenset({"node_modules", "bower_components", "__pycache__"})
"""Directories that programs fill, beside virtual environments and those whose names begin with a dot."""

VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
"""What Python puts into one, whatever its name is."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a directory are meant; patterns are written as in ``.gitignore``, from the directory on."""

    include: Sequence[str] = ()
    """Only files that these name, whatever their suffixes are; without any, those with a suffix of texts."""
    exclude: Sequence[str] = ()
    """But no file or directory that these name."""
    ignore: bool = True
    """Leave out what ``.gitignore`` files name: those in the directory, and above it those of its Git repository."""
    hidden: bool = False
    """Look into hidden files and directories too, and into those that programs fill."""


@dataclass(slots=True)
class Walk:
    """What was found."""

    files: Sequence[Path] = ()
    """As ``real_path`` gives them, each once, in the order of their names within each directory."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """Directories that could not be read, and why."""
    links: int = 0
    """Symbolic links within directories, which are not followed: they may lead in circles, or anywhere."""


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return the path by which a file is known from wherever it is named: absolute, without symbolic links."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        raise InvalidValueError("path", "has a character that no path has") from None


def walk(paths: Iterable[str | os.PathLike[str]], selection: Selection | None = None) -> Walk:
    """Find the files of these paths: a file is meant whatever its name is, a directory for what is selected of it.

    Raises NotFoundError for a path that is not there, UnavailableError for one that may not be looked at, and
    InvalidValueError for a pattern that is none.
    """
    chosen = selection or Selection()
    found = Walk()
    files: dict[Path, None] = {}
    for path in map(real_path, paths):
        if _is_folder(path):
            files |= dict.fromkeys(_Walking(path, chosen, found).files())
        else:
            files[path] = None
    found.files = list(files)
    return found


class _Walking:
    """The way through one directory."""

    def __init__(self, root: Path, chosen: Selection, found: Walk) -> None:
        self._root = root
        self._chosen = chosen
        self._found = found
        self._include = _patterns(root, "include", chosen.include)
        self._exclude = _patterns(root, "exclude", chosen.exclude)

    def files(self) -> Iterator[Path]:
        """Yield the files of the directory that are meant, those of a directory before those of the ones in it."""
        waiting = [(self._root, ignore_files_above(self._root) if self._chosen.ignore else [])]
        while waiting:
            folder, ignores = waiting.pop()
            entries = self._entries(folder)
            names = {entry.name for entry in entries}
            if VIRTUAL_ENVIRONMENT in names and folder != self._root and not self._chosen.hidden:
                continue
            if self._chosen.ignore and NAME in names:
                ignores = [read_ignore_file(folder), *ignores]
            below = []
            for entry in entries:
                path = Path(entry.path)
                is_folder = entry.is_dir(follow_symlinks=False)
                if not self._is_looked_at(entry, path, ignores, is_folder=is_folder):
                    continue
                if is_folder:
                    below.append((path, ignores))
                elif self._is_meant(path):
                    yield path
            waiting += reversed(below)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._found.unreadable.append((folder, f"cannot be read: {error.strerror or error}"))
            return []

    def _is_looked_at(
        self, entry: os.DirEntry[str], path: Path, ignores: Sequence[Patterns], *, is_folder: bool
    ) -> bool:
        if entry.name == GIT:
            return False
        if not self._chosen.hidden and (entry.name.startswith(".") or (is_folder and entry.name in NEVER_MEANT)):
            return False
        if self._exclude is not None and self._exclude.say(path, is_folder=is_folder):
            return False
        if is_ignored(path, ignores, is_folder=is_folder):
            return False
        if entry.is_symlink():
            self._found.links += 1
            return False
        return True

    def _is_meant(self, path: Path) -> bool:
        if self._include is not None:
            return self._include.cover(path)
        return path.suffix.lower() in SUFFIXES


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("file or directory", str(path)) from None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror or error}") from error


def _patterns(root: Path, name: str, patterns: Sequence[str]) -> Patterns | None:
    rules = parse_patterns(name, patterns)
    return None if rules is None else Patterns(root, rules)
