"""The triggers that belong to the schema, as text: one source for the revisions and for the drift check.

A revision names a trigger's table and columns; what the text is must stay as it was when the revision was released,
so a change here needs a revision that drops and creates the triggers anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import MetaData

from agentos_store.types import ExactJSON, JSONValue

APPEND_ONLY = {
    "task_audits": ("tasks", "task_id", "audit_pruning_permits"),
    "guardian_verdicts": ("tasks", "task_id", "audit_pruning_permits"),
}
"""By append-only table: its parent, the key of both, and the table whose rows permit pruning."""

ERASABLE = {
    "task_audits": (
        "payload",
        (
            "audit_id",
            "task_id",
            "repo_id",
            "level",
            "event_type",
            "decision_id",
            "source_event_ts",
            "supervisor_processed_at",
            "verdict_id",
            "created_at",
            "prev_hash",
            "row_hash",
        ),
    ),
}
"""By append-only table: the column that may become NULL while pruning is permitted, and all that must stay then."""


def json_triggers(table: str, column: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of the SQLite triggers that refuse invalid JSON in a column, by the column's name."""
    for event in ("INSERT", "UPDATE"):
        name = f"tr_{table}_{column}_json_{event.lower()}"
        of = f" OF {column}" if event == "UPDATE" else ""
        text = (
            f"CREATE TRIGGER {name} BEFORE {event}{of} ON {table} FOR EACH ROW"
            f" WHEN NEW.{column} IS NOT NULL AND NOT json_valid(NEW.{column})"
            f" BEGIN SELECT RAISE(ABORT, 'Invalid JSON in {table}.{column}'); END"
        )
        yield name, text


def append_only_triggers_sqlite(table: str, *, erasing: bool = False) -> Iterator[tuple[str, str]]:
    """Yield name and text of the SQLite triggers that keep a table append-only.

    A DELETE passes when the parent is gone, for that is its own cascade, or while pruning is permitted. With
    ``erasing`` an UPDATE passes while pruning is permitted that makes the erasable column NULL, and nothing else.
    """
    parent, key, permits = APPEND_ONLY[table]
    refusal = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    name = f"tr_{table}_no_update"
    unless = ""
    if erasing:
        column, others = ERASABLE[table]
        same = " AND ".join(f"NEW.{other} IS OLD.{other}" for other in others)
        permitted = f"EXISTS (SELECT 1 FROM {permits} WHERE {key} = OLD.{key})"
        unless = f" WHEN NOT (NEW.{column} IS NULL AND {same} AND {permitted})"
    yield name, f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} FOR EACH ROW{unless} {refusal}"
    name = f"tr_{table}_no_delete"
    kept = (
        f"EXISTS (SELECT 1 FROM {parent} WHERE {key} = OLD.{key})"
        f" AND NOT EXISTS (SELECT 1 FROM {permits} WHERE {key} = OLD.{key})"
    )
    yield name, f"CREATE TRIGGER {name} BEFORE DELETE ON {table} FOR EACH ROW WHEN {kept} {refusal}"


def append_only_function(table: str, schema: str, *, erasing: bool = False) -> str:
    """Return the PostgreSQL function behind the triggers; it finds its tables in the schema of the table that fired.

    With ``erasing`` it replaces the one that is there, and an UPDATE passes as it does on SQLite.
    """
    parent, key, permits = APPEND_ONLY[table]
    create, wanted, erasure = "CREATE FUNCTION", "", ""
    if erasing:
        column, _ = ERASABLE[table]
        create, wanted = "CREATE OR REPLACE FUNCTION", "\n    wanted record;"
        # Compared byte by byte, for JSON has no equality.
        erasure = f"""
    IF TG_OP = 'UPDATE' THEN
        wanted := OLD;
        wanted.{column} := NULL;
        IF NEW *= wanted THEN
            EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM %I.{permits} WHERE {key} = $1)', TG_TABLE_SCHEMA)
                INTO kept USING OLD.{key};
            IF NOT kept THEN
                RETURN NEW;
            END IF;
        END IF;
    END IF;"""
    return f"""
{create} {schema}.{table}_append_only() RETURNS trigger LANGUAGE plpgsql AS $function$
DECLARE
    kept boolean;{wanted}
BEGIN{erasure}
    IF TG_OP = 'DELETE' THEN
        EXECUTE format(
            'SELECT EXISTS (SELECT 1 FROM %I.{parent} WHERE {key} = $1)'
            ' AND NOT EXISTS (SELECT 1 FROM %I.{permits} WHERE {key} = $1)', TG_TABLE_SCHEMA, TG_TABLE_SCHEMA)
            INTO kept USING OLD.{key};
        IF NOT kept THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '{table} is append-only' USING ERRCODE = 'integrity_constraint_violation';
END
$function$
""".strip()


def append_only_triggers_postgresql(table: str, schema: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of the PostgreSQL triggers that keep a table append-only."""
    call = f"EXECUTE FUNCTION {schema}.{table}_append_only()"
    name = f"tr_{table}_append_only"
    yield name, f"CREATE TRIGGER {name} BEFORE UPDATE OR DELETE ON {schema}.{table} FOR EACH ROW {call}"
    name = f"tr_{table}_no_truncate"
    yield name, f"CREATE TRIGGER {name} BEFORE TRUNCATE ON {schema}.{table} FOR EACH STATEMENT {call}"


def triggers_of_models(metadata: MetaData) -> Iterator[str]:
    """Yield the text of every SQLite trigger that the models ask for."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, JSONValue | ExactJSON):
                yield from (text for _, text in json_triggers(table.name, column.name))
        if table.name in APPEND_ONLY:
            erasing = table.name in ERASABLE
            yield from (text for _, text in append_only_triggers_sqlite(table.name, erasing=erasing))
