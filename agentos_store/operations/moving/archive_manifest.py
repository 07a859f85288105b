"""The manifest of an archive: what is in it, and how each part can be checked."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from agentos_store.engine.version import HEAD
from agentos_store.errors import DamagedFileError, InvalidValueError, SchemaMismatchError
from agentos_store.migrate.revisions import known
from agentos_store.operations.moving.facts import Facts
from agentos_store.operations.moving.rows import TableHash
from agentos_store.types import from_text, to_text

T = TypeVar("T")

NAME = "agentos_store archive"

FORMAT = 1
"""The version of the format that this code writes, and the newest that it reads."""

MANIFEST = "manifest.json"
ABOUT_FILE = "agentos_store-archive.txt"
"""The first file in an archive, by which it is known."""
LONGEST_MANIFEST = 4 * 1024 * 1024
"""Bytes."""
LONGEST_LINE = 1024 * 1024 * 1024
"""Bytes of a row that anybody can have written: PostgreSQL's limit of a value."""

ABOUT = """\
An archive of agentos_store.

tables/*.jsonl hold the rows of the tables, one JSON array in a line, its values in the order of the table's columns in
manifest.json, which also has the number of rows, the length of the longest line, and a hash: the sum of the lines'
SHA-256 modulo 2**256. Times are ISO 8601 in UTC, amounts are decimal strings, vectors are Base64 of 32-bit floats, and
JSON documents are strings that hold their text.

    agentos-store verify FILE                  checks every byte of it
    agentos-store --url URL restore FILE       makes a database of it

The last 64 bytes of the file are the SHA-256 of the whole file in hexadecimal digits, computed with 64 zeros ("0") in
their place.
"""


def member(table: str) -> str:
    """Return the name of the file in the archive that holds the table's rows."""
    return f"tables/{table}.jsonl"


@dataclass(frozen=True, slots=True)
class TableEntry:
    """What the manifest says of a table."""

    name: str
    columns: tuple[str, ...]
    rows: int
    digits: str
    """The sum of its rows' hashes, in hexadecimal."""
    longest: int
    """Bytes of the longest line, with its end."""

    @property
    def hash(self) -> TableHash:
        """The number of rows, and the sum of their hashes."""
        return TableHash.of(self.rows, self.digits)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in an archive."""

    program: str
    """The version of agentos_store that made it."""
    revision: str
    backend: str
    """The kind of database it was made of: ``"sqlite"`` or ``"postgresql"``."""
    created_at: dt.datetime
    tables: tuple[TableEntry, ...]
    facts: Facts
    """What the database knew beside its rows."""

    @property
    def members(self) -> list[str]:
        """The files in the archive, in their order."""
        return [ABOUT_FILE, *(member(table.name) for table in self.tables), MANIFEST]

    @property
    def root_hash(self) -> str:
        """The hash over all tables, as ``rows.root_hash`` has it of a database; also for tables of other revisions."""
        lines = [f"{each.name} {','.join(each.columns)} {each.rows} {each.digits}\n" for each in self.tables]
        return sha256("".join(sorted(lines)).encode()).hexdigest()

    def to_json(self) -> bytes:
        """Return the text of the manifest."""
        document = {
            "format": NAME,
            "version": FORMAT,
            "program": self.program,
            "revision": self.revision,
            "backend": self.backend,
            "created_at": to_text(self.created_at),
            "root_hash": self.root_hash,
            "tables": [
                {
                    "name": each.name,
                    "rows": each.rows,
                    "hash": each.digits,
                    "longest": each.longest,
                    "columns": each.columns,
                }
                for each in self.tables
            ],
            "facts": self.facts.to_dict(),
        }
        return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Return the manifest of this text.

    DamagedFileError when it is none; SchemaMismatchError when another program wrote it, most likely a newer one.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(where) from None
    found = _Fields(document, where)
    version, program, revision = found.get("version", int), found.get("program", str), found.get("revision", str)
    if found.get("format", str) != NAME:
        raise _damaged(where)
    if version != FORMAT or revision not in known():
        what = f"of format {version}" if version != FORMAT else f"of revision {revision}"
        why = f"{where} is {what}, which this code does not know; it was made by agentos-store {program}"
        raise SchemaMismatchError(found=revision, expected=HEAD, why=why)
    try:
        manifest = Manifest(
            program=program,
            revision=revision,
            backend=found.get("backend", str),
            created_at=from_text(found.get("created_at", str)),
            tables=tuple(_entry(_Fields(each, where)) for each in found.get("tables", list)),
            facts=Facts.from_dict(found.get("facts", dict)),
        )
    except InvalidValueError:
        raise _damaged(where) from None
    if len({each.name for each in manifest.tables}) != len(manifest.tables):
        raise _damaged(where)
    if manifest.root_hash != found.get("root_hash", str):
        raise _damaged(where)
    return manifest


def _entry(found: _Fields) -> TableEntry:
    entry = TableEntry(
        name=found.get("name", str),
        columns=tuple(found.get("columns", list)),
        rows=found.get("rows", int),
        digits=found.get("hash", str),
        longest=found.get("longest", int),
    )
    digits = re.fullmatch("[0-9a-f]{64}", entry.digits)
    names = all(isinstance(each, str) and each.isidentifier() for each in (entry.name, *entry.columns))
    if not (digits and names and entry.rows >= 0 and 0 <= entry.longest <= LONGEST_LINE):
        raise found.damaged()
    return entry


class _Fields:
    """An object of the manifest, whose values have to be of their types."""

    def __init__(self, document: object, where: str) -> None:
        self._where = where
        if not isinstance(document, dict):
            raise self.damaged()
        self._document: dict[str, Any] = document

    def get(self, name: str, kind: type[T]) -> T:
        """Return a value."""
        value = self._document.get(name)
        # True is an int to isinstance.
        if type(value) is not kind:
            raise self.damaged()
        return value

    def damaged(self) -> DamagedFileError:
        """Return the error for a manifest that nobody can have written."""
        return _damaged(self._where)


def _damaged(where: str) -> DamagedFileError:
    return DamagedFileError(where, "its manifest is not one that agentos_store writes")
