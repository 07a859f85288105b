"""The schema: its revision, and whether it is what the models say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from agentos_store.engine.version import HEAD, UNFINISHED
from agentos_store.migrate.drift import Difference, find_drift
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import Patient
from agentos_store.operations.doctor.report import Finding, some

MAY_COMPARE = """
SELECT has_database_privilege(current_database(), 'CREATE') AND NOT pg_is_in_recovery()
       AND (SELECT reset_val = 'off' FROM pg_settings WHERE name = 'default_transaction_read_only')
"""


def revision(found: str | None) -> Iterator[Finding]:
    """Look whether the revision is the one that this code is written for."""
    if found is None:
        yield finding("revision-missing", f"no revision; this code is written for {HEAD}")
    elif found == UNFINISHED:
        yield finding("move-unfinished", "the mark of a copy or a restore is there")
    elif found not in known():
        yield finding("revision-foreign", f"revision {found}; this code is written for {HEAD}")
    elif found != HEAD:
        yield finding("revision-old", f"revision {found}; this code is written for {HEAD}")


def drift(patient: Patient) -> Iterator[Finding]:
    """Compare the schema with the models."""
    target = patient.target
    if target.schema is not None:
        ((may,),) = patient.ask(MAY_COMPARE)
        if not may:
            yield finding("drift-unchecked", "the role has no right to create a schema, or the server only reads")
            return
        # Its connection is one of its own.
        limits = {"statement_timeout": patient.limit, "lock_timeout": patient.patience}
        limited = patient.settings.model_copy(update=limits)
        target = Target(target.url, target.schema, limited)
    by_code: dict[str, list[str]] = defaultdict(list)
    for difference in find_drift(target):
        if not (difference.database or "").endswith("(not valid)"):
            by_code[_code(difference)].append(f"{difference.table or 'the schema'}: {difference.what}")
    for code, names in sorted(by_code.items()):
        yield finding(code, some(names))


CHECKS = (drift,)


def _code(difference: Difference) -> str:
    if difference.models is None:
        return "schema-extra"
    if difference.what.startswith(("trigger ", "function ")):
        return "trigger-missing"
    if difference.database is None:
        if difference.what == "table":
            return "table-missing"
        if difference.what.startswith("index ") and not difference.models.lower().startswith("create unique"):
            return "index-missing"
    return "drift"
