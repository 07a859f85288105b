"""Rows for other programs: JSON lines with the names of the columns and plain values.

It is not for coming back: an archive keeps every row exactly as it is, an export writes it as programs like to read it.
Times are ISO 8601 in UTC, amounts are decimal strings, JSON columns are the JSON that they hold, vectors are lists of
numbers. Characters that drive a terminal, or end a line for some readers, are written as escapes.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import sys
from array import array
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentos_store.engine.backend import Backend
from agentos_store.errors import AlreadyExistsError, InvalidValueError
from agentos_store.operations.backups.workshop import Progress, sync, typed_errors
from agentos_store.operations.moving.archive_writing import unhurried
from agentos_store.operations.moving.rows import Row
from agentos_store.operations.moving.sources import snapshot
from agentos_store.operations.moving.tables import MovedTable, moved_table, moved_tables
from agentos_store.operations.new_file import new_file
from agentos_store.types import ExactJSON, Float32Vector, JSONValue

DOMAINS: Mapping[str, Sequence[str]] = {
    "projects": ("projects", "project_repos"),
    "tasks": ("tasks", "task_dependency", "task_repo_scope", "task_artifact_ref"),
    "lineage": ("task_lineage",),
    "audits": ("task_audits", "task_audit_heads"),
    "verdicts": ("guardian_verdicts",),
    "inbox": ("supervisor_inbox",),
    "users": ("users", "quota_reservations"),
    "sessions": ("sessions",),
    "messages": ("messages",),
    "tool_calls": ("tool_call_records",),
    "contexts": ("contexts",),
    "agents": ("agents",),
    "documents": ("agent_documents",),
    "snapshots": ("snapshots",),
    "events": ("events",),
    "kb": ("kb_sources", "kb_chunks", "kb_models", "kb_embeddings"),
    "memory": ("memory_items",),
    "leases": ("leases",),
    "upkeep": ("import_ledger", "maintenance_runs"),
}
"""By the attribute of the store its tables; ``upkeep`` is what the store remembers of its own."""

TOLD = 1_000
"""Rows after which progress is told."""

_DRIVING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

Write = Callable[[object], str]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported."""

    directory: str
    rows: Mapping[str, int]
    """By table."""


def export(
    backend: Backend,
    directory: str | os.PathLike[str],
    names: Sequence[str] = (),
    *,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a file for each table into a new directory; see ``Store.export``."""
    tables = tables_of(names)
    target = Path(directory).absolute()
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise AlreadyExistsError("directory", str(target))
    if not target.parent.is_dir():
        raise InvalidValueError("directory", f"there is no folder {target.parent}")
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.partial")
    rows = {}
    with typed_errors(target):
        part.mkdir(mode=0o700)
    try:
        with unhurried(backend) as database, snapshot(database) as source:
            for table in tables:
                with new_file(part / f"{table.name}.jsonl") as file:
                    rows[table.name] = 0
                    for line in _lines(table, source.rows(table), "{"):
                        file.write(line)
                        rows[table.name] += 1
                        if progress is not None and not rows[table.name] % TOLD:
                            progress(table.name, rows[table.name], source.counts[table.name])
        with typed_errors(target):
            if target.is_dir():
                target.rmdir()
            part.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ExportReport(str(target), rows)


def export_lines(
    backend: Backend, names: Sequence[str] = (), *, progress: Progress | None = None
) -> Generator[bytes, None, None]:
    """Yield the rows at one moment, a line for each, in which its table comes first."""
    tables = tables_of(names)
    with unhurried(backend) as database, snapshot(database) as source:
        for table in tables:
            beginning = f'{{"table":{json.dumps(table.name)},'
            for number, line in enumerate(_lines(table, source.rows(table), beginning), start=1):
                yield line
                if progress is not None and not number % TOLD:
                    progress(table.name, number, source.counts[table.name])


def tables_of(names: Sequence[str]) -> list[MovedTable]:
    """Return the tables of these domains, or tables; all of them without any. InvalidValueError for an unknown one."""
    known = {table.name for table in moved_tables()}
    chosen: list[str] = []
    for name in names or DOMAINS:
        if name not in DOMAINS and name not in known:
            raise InvalidValueError("names", f"there is no {name!r}; there are {', '.join(DOMAINS)}")
        chosen += DOMAINS.get(name, (name,))
    return [moved_table(name) for name in dict.fromkeys(chosen)]


def _lines(table: MovedTable, rows: Iterator[Row], beginning: str) -> Iterator[bytes]:
    names = [f"{json.dumps(column.name)}:" for column in table.columns]
    writers = [_writer(form.column_type) for form in table.forms]
    fields = list(zip(names, writers, strict=True))
    for row in rows:
        values = [
            name + ("null" if value is None else write(value)) for (name, write), value in zip(fields, row, strict=True)
        ]
        text = f"{beginning}{','.join(values)}}}\n"
        if not text.isascii() or "\x7f" in text:
            text = _DRIVING.sub(_escaped, text)
        yield text.encode()


def _writer(column_type: object) -> Write:
    if isinstance(column_type, ExactJSON | JSONValue):
        # The text is the JSON.
        return str
    return _vector if isinstance(column_type, Float32Vector) else _encode


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode


def _vector(value: object) -> str:
    numbers = array("f", base64.b64decode(str(value)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return _encode(numbers.tolist())


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
