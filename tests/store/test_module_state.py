"""What a module keeps for later is shared by all stores of a process, so no tenant's data may be in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import agentos_store

PACKAGE = Path(agentos_store.__file__).parent

STATEMENTS = "statements by their shape, which is names of columns and filters; compiled, they are each database's own"
TEXTS = "a function of its arguments, which are texts and numbers, and not of any database"
PROCESS = "about this process, its forks and its clock, and no database"

KEPT = {
    "agents/changes.py": {"_CHANGES": STATEMENTS, "_SAVES": STATEMENTS},
    "conversations/append_statements.py": {
        **dict.fromkeys(("append_message", "append_rows", "insert_message", "insert_rows"), STATEMENTS)
    },
    "conversations/message_search.py": {"_RESTS": STATEMENTS, "_SEARCHES": STATEMENTS},
    "conversations/sessions.py": {"_CHANGES": STATEMENTS},
    "conversations/tool_call_dangling.py": {"_seal": STATEMENTS, "_sealed": STATEMENTS},
    "conversations/usage.py": {"_STATEMENTS": STATEMENTS},
    "conversations/users.py": {"_CHANGES": STATEMENTS},
    "engine/fork.py": {"_all": PROCESS, "_prepared": PROCESS, "_afterwards": PROCESS},
    "engine/meter.py": {"_NO_CALL": "a call that draws nothing"},
    "engine/postgresql/backend.py": {
        "_open": "open schemas by the URL with its password, and the schema",
        "_inherited": "what a forked child must not close, never looked at",
    },
    "engine/session.py": {"_insertions": STATEMENTS},
    "engine/sqlite/backend.py": {
        "_open": "open files by their real paths",
        "_inherited": "what a forked child must not close, never looked at",
    },
    "engine/sqlite/connection.py": {"_prepared": "texts of statements, in which no file is named"},
    "engine/sqlite/relevance.py": {"_decode": TEXTS},
    "engine/recordset.py": {"_dialect": "SQLAlchemy's dialect, which knows no database"},
    "engine/statement.py": {
        "_shape": "how models are made, by their classes",
        "row_builder": "how models are made, by their classes and columns",
    },
    "events/statements.py": {"_of_shape": STATEMENTS},
    "importers/writing.py": {"_inserts": STATEMENTS},
    "knowledge/chunking.py": {"_parsers": "parsers, which keep nothing of a text"},
    "knowledge/finding.py": {"_ALLOWED": STATEMENTS, "_RANKINGS": STATEMENTS},
    "knowledge/sources.py": {"_CHANGES": STATEMENTS},
    "memory/finding.py": {"_CONTEXTS": STATEMENTS, "_SEARCHES": STATEMENTS},
    "memory/items.py": {"_CHANGES": STATEMENTS},
    "migrate/drift.py": {"_models_on_sqlite": "what the models are on SQLite"},
    "migrate/ensure.py": {"_target": "targets by URL, schema and all that the environment says"},
    "migrate/revisions.py": {"known": PROCESS, "scripts": PROCESS},
    "operations/moving/tables.py": {"moved_tables": "what is copied of a store, by the models"},
    "operation.py": {"_inside": PROCESS},
    "projects/repository.py": {"_CHANGES": STATEMENTS},
    "search/tokenizer.py": {"_FOLDED": TEXTS, "_fold_cluster": TEXTS, "_is_mark": TEXTS, "_joins": TEXTS},
    "search/vectors.py": {
        "KEPT": "matrices by a revision that no other model ever had; what is taken from another database's, of which"
        " this one may be a copy, is compared row by row with what is there"
    },
    "store/repositories.py": {"_imported": "modules, by their names"},
    "tasks/claiming.py": {"_claim": STATEMENTS, "_claim_in_one": STATEMENTS},
    "tasks/repository.py": {"_CHANGES": STATEMENTS},
    "types/json_containment.py": {"_decode_pattern": TEXTS},
    "types/ulid.py": {"_lock": PROCESS, "_maker": PROCESS},
    "types/utc_datetime.py": {"_last": PROCESS, "_lock": PROCESS},
}
"""Every place where a module keeps something, and why it cannot show one tenant what is another's."""

CONTAINERS = {
    *("dict", "list", "set", "OrderedDict", "defaultdict", "deque", "Counter", "local", "ContextVar"),
    *("WeakValueDictionary", "WeakKeyDictionary", "WeakSet"),
}


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def is_empty(value: ast.expr | None, keepers: set[str]) -> bool:
    """Tell whether it is a container that begins empty, so that it is there to be filled."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List | ast.Set):
        return not value.elts
    return isinstance(value, ast.Call) and not value.args and name_of(value.func) in CONTAINERS | keepers


def keeps(node: ast.stmt) -> bool:
    """Tell whether the instances of a class are containers, or have some that begin empty."""
    if not isinstance(node, ast.ClassDef):
        return False
    if any(name_of(base.value if isinstance(base, ast.Subscript) else base) in CONTAINERS for base in node.bases):
        return True
    return any(
        is_empty(each.value, set())
        and isinstance(each.targets[0] if isinstance(each, ast.Assign) else each.target, ast.Attribute)
        for each in ast.walk(node)
        if isinstance(each, ast.Assign | ast.AnnAssign)
    )


def found(text: str, tree: ast.Module, keepers: set[str]) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_empty(node.value, keepers):
            yield name_of(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    if not re.search(r"\bglobal\b|cache", text):
        return
    for each in ast.walk(tree):
        if isinstance(each, ast.Global):
            yield from each.names
        elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = {name_of(mark.func if isinstance(mark, ast.Call) else mark) for mark in each.decorator_list}
            if marks & {"cache", "lru_cache"}:
                yield each.name


def test_what_modules_keep_is_known_to_hold_nothing_of_a_tenant() -> None:
    texts = {str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    keepers = {
        node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef) and keeps(node)
    }
    names = {
        path: set(found(texts[path], tree, keepers)) for path, tree in trees.items() if not path.startswith("testing/")
    }
    unknown = {path: each - set(KEPT.get(path, ())) for path, each in names.items()}
    assert {path: each for path, each in unknown.items() if each} == {}
    gone = {path: set(each) - names.get(path, set()) for path, each in KEPT.items()}
    assert {path: each for path, each in gone.items() if each} == {}
