"""Every kind of finding: its code, how grave it is, what it means, what to do. The page docs/doctor.md says so too."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agentos_store.operations.doctor.kinds_common import DATA, EXAMINATION, SCHEMA, USE
from agentos_store.operations.doctor.kinds_postgresql import LOAD, SERVER, TABLES
from agentos_store.operations.doctor.kinds_sqlite import SQLITE
from agentos_store.operations.doctor.report import Finding, Kind


def finding(code: str, found: str) -> Finding:
    """Return a finding with its facts."""
    kind = KINDS[code]
    return Finding(code, kind.severity, found, kind.meaning, kind.remedy)


SECTIONS: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "The examination itself": EXAMINATION,
        "The schema": SCHEMA,
        "What is stored": DATA,
        "What the open store has done": USE,
        "SQLite": SQLITE,
        "PostgreSQL: the server": SERVER,
        "PostgreSQL: what goes on": LOAD,
        "PostgreSQL: tables": TABLES,
    }
)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {code: kind for kinds in SECTIONS.values() for code, kind in kinds.items()}
)
