"""What of a registry has no place in the store, as JSON lines: ``{"table": "runs", "row": {"id": 1, …}}``.

A BLOB, and a text that is no UTF-8, is ``{"base64": "…"}``; a number that JSON has no word for is ``{"float": "inf"}``.
"""

from __future__ import annotations

import base64
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from agentos_store.errors import AlreadyExistsError
from agentos_store.importers.agentos.registry import Registry
from agentos_store.importers.problems import Problem
from agentos_store.importers.report import ImportReport, Note
from agentos_store.importers.source import Value


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Give a text file that only its owner may read, and that gets its name when it is complete.

    AlreadyExistsError when there is such a file, before or by then; OSError when none can be made. After an error
    nothing is left of it.
    """
    target = Path(path)
    if os.path.lexists(target):
        raise AlreadyExistsError("file", str(target))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    made = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(made, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123  it is open already
            yield file
            file.flush()
            os.fsync(file.fileno())
        _name(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_rest(registry: Registry, file: TextIO, report: ImportReport) -> None:
    """Write the rows that no record has anything of, and note in the report how many, and which cannot be read."""
    counts: dict[str, int] = {}
    for found in registry.rest():
        if isinstance(found, Problem):
            report.aside(Note(found.table, found.key, found.reason))
            continue
        row = {column: _plain(value) for column, value in found.values.items()}
        file.write(json.dumps({"table": found.table, "row": row}, ensure_ascii=False, allow_nan=False) + "\n")
        counts[found.table] = counts.get(found.table, 0) + 1
    report.exported = counts


def _plain(value: Value) -> object:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, str):
        with suppress(UnicodeEncodeError):
            value.encode()
            return value
        return {"base64": base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()}
    return value


def _name(part: Path, target: Path) -> None:
    try:
        # Unlike a rename, a link never takes the place of a file that has appeared meanwhile.
        os.link(part, target)
    except FileExistsError:
        raise AlreadyExistsError("file", str(target)) from None
    except OSError:
        # Some file systems have no links.
        if os.path.lexists(target):
            raise AlreadyExistsError("file", str(target)) from None
        part.rename(target)
