"""Patterns as Git has them in ``.gitignore``, and what such files say about a path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from pathspec import GitIgnoreSpec

from agentos_store.errors import InvalidValueError

GIT = ".git"
NAME = ".gitignore"

_BELOW = re.compile(r"(?<![^/!])\*\*(?=/? *$)")

_SLASH = "ps_d"
"""How pathspec calls the slash after a directory that a pattern names."""

_LONGEST = 1_000_000
"""Characters of such a file that are read."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns that are to be understood from a directory on."""

    folder: Path
    rules: GitIgnoreSpec

    def say(self, path: Path, *, is_folder: bool) -> bool | None:
        """Tell whether they name a path below the directory, or take it out again; None when they say nothing.

        As for Git, a path is not named by what names a directory that it is in: nobody looks into that one anyway.
        """
        relative = self._relative(path) + ("/" if is_folder else "")
        for pattern in reversed(self._patterns):
            if pattern.include is not None and any(map(_names_all, pattern.regex.finditer(relative))):
                return bool(pattern.include)
        return None

    def cover(self, path: Path) -> bool:
        """Tell whether they name a file, or a directory that it is in."""
        return bool(self.rules.check_file(self._relative(path)).include)

    @property
    def _patterns(self) -> Sequence[Any]:
        # They are regular expressions with the group below, whatever pathspec says about their type.
        return cast("Sequence[Any]", self.rules.patterns)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _names_all(found: re.Match[str]) -> bool:
    """Tell whether what a pattern names is the whole path, and no directory before its end."""
    end = found.end(_SLASH) if _SLASH in found.re.groupindex else -1
    return end in {-1, len(found.string)}


def parse_patterns(name: str, patterns: Sequence[str]) -> GitIgnoreSpec | None:
    """Return the patterns, or None without any; InvalidValueError names the argument that has one that is none."""
    for pattern in patterns:
        if not _is_pattern(pattern):
            raise InvalidValueError(name, f"{pattern!r} is no pattern")
    return _rules(patterns) if patterns else None


def read_ignore_file(folder: Path) -> Patterns:
    """Return what the ``.gitignore`` of a directory says; lines that are no patterns say nothing."""
    try:
        with (folder / NAME).open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            text = file.read(_LONGEST)
    except OSError:
        # Git goes on without it too.
        text = ""
    return Patterns(folder, _rules(filter(_is_pattern, text.replace("\r\n", "\n").split("\n"))))


def is_ignored(path: Path, files: Iterable[Patterns], *, is_folder: bool) -> bool:
    """Tell what the first of the files says that says anything: they come with the nearest one first."""
    said = (each.say(path, is_folder=is_folder) for each in files)
    return next((found for found in said if found is not None), False)


def ignore_files_above(folder: Path) -> list[Patterns]:
    """Return the ``.gitignore`` files above a directory of a Git repository, the nearest first.

    None when they name the directory itself, or one that it is in: it was asked for all the same.
    """
    inside: list[Path] = [folder]
    while not (inside[-1] / GIT).exists():
        if inside[-1].parent == inside[-1]:
            return []
        inside.append(inside[-1].parent)
    files: list[Patterns] = []
    for child, parent in reversed(list(pairwise(inside))):
        files.insert(0, read_ignore_file(parent))
        if is_ignored(child, files, is_folder=True):
            return []
    return files


def _rules(lines: Iterable[str]) -> GitIgnoreSpec:
    # For pathspec ``a/**`` names the directory too, for Git only what is in it.
    return GitIgnoreSpec.from_lines(_BELOW.sub(r"\g<0>/*", line) for line in lines)


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
