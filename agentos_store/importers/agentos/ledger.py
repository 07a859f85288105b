"""What came in from registries, by the keys that it had there: it does not come in a second time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import bindparam

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import ConflictError
from agentos_store.housekeeping.models import ImportLedgerEntry
from agentos_store.importers.writing import asking, stored

SOURCE: Final = "agentos"


def entered(session: Session, kind: str, keys: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return of those of a batch's keys that came in already what they became, and what they were when they did."""
    found = stored(session, _LEDGER, keys, kind=kind)
    return {key: _parted(ours) for key, ours in found.items()}


def enter(session: Session, kind: str, became: Mapping[str, tuple[str, str]]) -> None:
    """Note what rows became; raise ConflictError when somebody else notes the same."""
    time = session.now()
    rows: list[dict[str, Any]] = [
        {
            "source": SOURCE,
            "kind": kind,
            "source_key": key,
            "our_key": f"{ours} {state}",
            "imported_at": time,
        }
        for key, (ours, state) in became.items()
    ]
    try:
        session.execute_many(_ENTER, rows)
    except IntegrityViolation:
        # Both looked before either had written.
        why = "somebody else writes the same rows, another import perhaps; run this one again afterwards"
        raise ConflictError("import", SOURCE, why) from None


def _parted(ours: str) -> tuple[str, str]:
    key, _, state = ours.rpartition(" ")
    return key, state


_ENTRIES = ImportLedgerEntry.table()
_LEDGER = asking(
    _ENTRIES.c.source_key,
    _ENTRIES.c.our_key,
    _ENTRIES.c.source == bindparam("source", SOURCE, type_=_ENTRIES.c.source.type),
    _ENTRIES.c.kind == bindparam("kind", type_=_ENTRIES.c.kind.type),
)
_ENTER: Statement[Any] = Statement(insert_into(ImportLedgerEntry))
