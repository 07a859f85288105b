"""What tasks depend on, what they may touch, and what they made.

A repair never gives a task more rights than its row did: a scope that is in doubt is set aside, and without one the
task may touch nothing of the repository.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Final

from agentos_store.importers.agentos.records import ArtifactRecord, DependencyRecord, ScopeRecord
from agentos_store.importers.agentos.references import References, pair
from agentos_store.importers.agentos.shapes import ORIGIN_KEY
from agentos_store.importers.jsontext import JSON, UNSTORABLE, parse_json
from agentos_store.importers.problems import Repair, SetAside
from agentos_store.importers.row import Row, ulid_time
from agentos_store.types.identifier import CONTROL

VALUE_LENGTH: Final = 1000
KEY_BYTES: Final = 2600
VALUE_BYTES: Final = 1200
"""What an entry of an index may hold, with room for the rest of it."""

_STRENGTH: Final = {"suggests": 0, "requires": 1, "blocks": 2}
_SCOPES: Final = frozenset({"full", "paths", "read_only"})
_REF_TYPES: Final = frozenset({"commit", "branch", "pr", "patch", "file", "tag"})


def read_dependency(row: Row, references: References, before: dt.datetime | None) -> DependencyRecord:
    """Make the record of one row; ``before`` is the time of the record before it."""
    task_id, needed = row.identifier("task_id"), row.identifier("depends_on_task_id")
    if task_id == needed:
        raise SetAside("a task cannot depend on itself")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    if not references.has_task(needed):
        raise SetAside("the task that it depends on is not in the registry")
    kind = row.word("dependency_type")
    if kind not in _STRENGTH:
        # What holds a task back too long is noticed; what lets it start too early may not be.
        row.repaired(f"dependency_type: {row.text('dependency_type')!r} became 'blocks'")
        kind = "blocks"
    metadata = row.object("metadata")
    return DependencyRecord(
        source_id=row.rowid,
        task_id=task_id,
        depends_on_task_id=needed,
        dependency_type=kind,
        reason=row.text("reason"),
        created_by=row.text("created_by"),
        created_at=row.first_time("created_at", otherwise=before or ulid_time(task_id) or references.around),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def merged_dependency(first: DependencyRecord, others: Sequence[DependencyRecord]) -> DependencyRecord:
    """Make one record of all rows of a pair: the strongest type, and for the rest the first row."""
    if not others:
        return first
    kind = max((first, *others), key=lambda record: _STRENGTH[record.dependency_type]).dependency_type
    kept: list[JSON] = [
        {
            "dependency_type": record.dependency_type,
            "reason": record.reason,
            "created_by": record.created_by,
            "created_at": record.created_at.isoformat(),
            "metadata": record.metadata,
        }
        for record in (first, *others)
    ]
    what = f"the pair stands in {len(kept)} rows, of which one was made, with the strongest type: {kind!r}"
    return dataclasses.replace(
        first,
        dependency_type=kind,
        metadata=_with_merged(first.metadata, kept),
        merged=len(others),
        repairs=(
            *first.repairs,
            *(repair for record in others for repair in record.repairs),
            Repair("task_dependency", str(first.source_id), what),
        ),
    )


def read_scope(row: Row, references: References, before: dt.datetime | None) -> ScopeRecord:
    """Make the record of one row; ``before`` is the time of the record before it."""
    task_id, repo_id = row.identifier("task_id"), row.identifier("repo_id")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    found = row.text("scope")
    scope = row.word("scope").replace("-", "_")
    if scope not in _SCOPES:
        raise SetAside(f"its scope {(found or '')[:100]!r} is not known, so the task may touch nothing there")
    if found != scope:
        row.repaired(f"scope: {found!r} was read as {scope!r}")
    filters = _filters(row)
    if bool(filters) != (scope == "paths"):
        why = "takes no path_filters" if filters else "needs path_filters"
        raise SetAside(f"its scope {scope!r} {why}, so the task may touch nothing there")
    metadata = row.object("metadata")
    return ScopeRecord(
        source_id=row.rowid,
        task_id=task_id,
        repo_id=repo_id,
        scope=scope,
        path_filters=filters,
        created_at=row.first_time("created_at", otherwise=before or ulid_time(task_id) or references.around),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def merged_scope(first: ScopeRecord, others: Sequence[ScopeRecord]) -> ScopeRecord:
    """Make one record of all rows about one task and repository, if they say the same; else set them aside."""
    if not others:
        return first
    if any((other.scope, other.path_filters) != (first.scope, first.path_filters) for other in others):
        raise SetAside(DIFFERING)
    kept: list[JSON] = [
        {"created_at": record.created_at.isoformat(), "metadata": record.metadata} for record in (first, *others)
    ]
    what = f"the same is said in {len(kept)} rows, of which one was made"
    return dataclasses.replace(
        first,
        metadata=_with_merged(first.metadata, kept),
        merged=len(others),
        repairs=(
            *first.repairs,
            *(repair for record in others for repair in record.repairs),
            Repair("task_repo_scope", str(first.source_id), what),
        ),
    )


DIFFERING: Final = "rows about this task and repository differ, or make no sense, so the task may touch nothing there"


def read_artifact(row: Row, references: References, refs: str, before: dt.datetime | None) -> ArtifactRecord:
    """Make the record; ``refs`` is the set of those that are taken, ``before`` the time of the record before it."""
    task_id, repo_id = row.identifier("task_id"), row.identifier("repo_id")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    found = row.text("ref_type")
    ref_type = row.word("ref_type")
    if ref_type not in _REF_TYPES:
        raise SetAside(f"its ref_type {(found or '')[:100]!r} is not known")
    if found != ref_type:
        row.repaired(f"ref_type: {found!r} was read as {ref_type!r}")
    ref_value = row.required("ref_value", VALUE_LENGTH)
    if len(ref_value.encode()) > VALUE_BYTES:
        raise SetAside(f"its ref_value is longer than {VALUE_BYTES} bytes")
    if len(f"{task_id}{repo_id}{ref_type}{ref_value}".encode()) > KEY_BYTES:
        raise SetAside(f"its task, repository, ref_type and ref_value are longer than {KEY_BYTES} bytes")
    if not references.keys.add(refs, pair(task_id, repo_id, ref_type, ref_value)):
        raise SetAside("an earlier row is the same artifact")
    metadata = row.object("metadata")
    return ArtifactRecord(
        source_id=row.rowid,
        task_id=task_id,
        repo_id=repo_id,
        ref_type=ref_type,
        ref_value=ref_value,
        summary=row.text("summary"),
        created_at=row.first_time("created_at", otherwise=before or ulid_time(task_id) or references.around),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def _filters(row: Row) -> list[str]:
    """Return the patterns exactly as they are: with one that is missing or changed a task could touch more."""
    text = row.text("path_filters")
    if text is None or not text.strip():
        return []
    value: object
    try:
        value, _ = parse_json(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise SetAside("its path_filters are no JSON, so the task may touch nothing there") from None
        row.repaired("path_filters: it was a Python literal")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise SetAside("its path_filters are no list of patterns, so the task may touch nothing there")
    if any(UNSTORABLE.search(each) or "\ufffd" in each for each in value):
        raise SetAside("its path_filters hold what is no text, so the task may touch nothing there")
    if not all(_is_pattern(each) for each in value):
        raise SetAside("its path_filters hold what is no pattern as in .gitignore, so the task may touch nothing there")
    return value


def _is_pattern(text: str) -> bool:
    """Tell whether it names paths, as a comment, a blank, and what goes on in another line do not."""
    # Only a registry that has such scopes pays for the import.
    from pathspec import GitIgnoreSpec

    if CONTROL.search(text):
        return False
    try:
        return all(pattern.include is not None for pattern in GitIgnoreSpec.from_lines([text]).patterns)
    except ValueError:
        return False


def _with_merged(metadata: dict[str, JSON] | None, rows: list[JSON]) -> dict[str, JSON]:
    free = dict(metadata or {})
    name, number = f"{ORIGIN_KEY}_merged", 0
    while name in free:
        number += 1
        name = f"{ORIGIN_KEY}_merged_{number}"
    free[name] = rows
    return free
