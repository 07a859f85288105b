"""Whether a scope covers a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentos_store.errors import InvalidValueError
from agentos_store.tasks.link_models import SCOPE, TaskRepoScope
from agentos_store.types import Text
from agentos_store.types.identifier import CONTROL

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_TEXT = Text()


def allows(scope: TaskRepoScope, path: str, *, write: bool) -> bool:
    """Tell whether the scope lets its task write, or only read, the path."""
    if scope.scope == "read_only":
        return not write
    return scope.scope == "full" or _compiled(scope.path_filters).match_file(path)


def check_path(path: object) -> str:
    """Return the path in its plain form, without ``.`` and doubled slashes; raise InvalidValueError for any other.

    ``..`` is refused wherever it stands: where it leads depends on symbolic links, which only the file system knows. A
    slash at the end says that it is a directory, as in the patterns, and stays.
    """
    text = _one_line(path, "path")
    if "\\" in text:
        raise InvalidValueError("path", "must be written with /, without backslashes")
    if text.startswith("/") or text[1:2] == ":":
        raise InvalidValueError("path", "must be relative to the repository")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise InvalidValueError("path", "leads out of the repository, or may do so")
    if not parts:
        raise InvalidValueError("path", "names nothing in the repository")
    return "/".join(parts) + ("/" if text.endswith(("/", "/.")) else "")


def check_filters(scope: str, path_filters: object) -> list[str]:
    """Return the patterns as a list; raise InvalidValueError for those that are none, or do not go with the scope."""
    SCOPE.check(scope, "scope")
    # A text is a sequence too, of letters, each of which is a pattern.
    if isinstance(path_filters, str | bytes) or not isinstance(path_filters, Sequence):
        raise InvalidValueError("path_filters", "must be a list of patterns")
    filters = [_one_line(each, f"path_filters[{number}]") for number, each in enumerate(path_filters)]
    if bool(filters) != (scope == "paths"):
        raise InvalidValueError("path_filters", "are what the scope 'paths' needs, and no other takes")
    if filters:
        for number, each in enumerate(filters):
            try:
                patterns = _compiled([each]).patterns
            except ValueError:
                raise InvalidValueError(f"path_filters[{number}]", "is no pattern as in .gitignore") from None
            if all(pattern.include is None for pattern in patterns):
                raise InvalidValueError(f"path_filters[{number}]", "is blank or a comment, so it would name no path")
    return filters


def _compiled(path_filters: Sequence[str]) -> GitIgnoreSpec:
    # Only whoever asks about paths pays for the import.
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(path_filters)


def _one_line(value: object, name: str) -> str:
    text = _TEXT.check(value, name)
    # A pattern ends at the end of a line, and so would match a name that goes on after it.
    if CONTROL.search(text):
        raise InvalidValueError(name, "holds a control character")
    if not text:
        raise InvalidValueError(name, "is empty")
    return text
