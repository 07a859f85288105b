"""The schema in an SQLite file as single facts, so that two schemas can be compared however their text was written.

SQLite keeps the text of each CREATE statement. A column that was added later stands elsewhere, its foreign key stands
inside it, and a table that was rebuilt has quotes round its name; all of that is taken out here.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agentos_store.engine.version import TABLE

Facts = dict[tuple[str, str], str]
"""By table and by what it is (``"column title"``, ``"index ix_…"``): its definition in a normal form."""


class _Token(NamedTuple):
    text: str
    bare: bool
    """Whether it may be a keyword: it stands without quotes."""


_TOKEN = re.compile(
    r"""\s+|--[^\n]*|/\*.*?\*/
    |(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    |(?P<bare>\w+|<>|!=|<=|>=|==|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)

_TABLE_CONSTRAINTS = {"constraint", "primary", "unique", "check", "foreign"}
_COLUMN_CLAUSES = _TABLE_CONSTRAINTS - {"foreign"} | {"not", "null", "default", "collate", "references"}


def read_sqlite(raw: sqlite3.Connection) -> Facts:
    """Return every fact of the schema but for the version table and what SQLite keeps for itself."""
    rows = raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    virtual = [name for kind, name, _, sql in rows if kind == "table" and _is_virtual(sql)]
    facts: Facts = {}
    for kind, name, table, sql in rows:
        if table == TABLE or table.startswith("sqlite_") or any(_is_shadow(table, owner) for owner in virtual):
            continue
        if kind == "table" and not _is_virtual(sql):
            facts[table, "table"] = "table"
            facts.update(table_facts(table, sql))
        elif kind in {"table", "view"}:
            facts[table, "table"] = _text(_tokens(sql))
        else:
            facts[table, f"{kind} {name}"] = _text(_tokens(sql))
    return facts


def table_facts(table: str, sql: str) -> Facts:
    """Return the columns, the constraints and the options that a CREATE TABLE statement gives a table."""
    tokens = _tokens(sql)
    opening = next(number for number, token in enumerate(tokens) if token.text == "(")
    body, end = _parenthesis(tokens, opening)
    facts: Facts = {}
    for part in _split(body):
        if part[0].bare and part[0].text in _TABLE_CONSTRAINTS:
            found = [_constraint(part)]
        else:
            definition, found = _column(part)
            facts[table, f"column {part[0].text}"] = definition
        for name, kind, text in found:
            facts[table, f"{kind} {name}".strip()] = text
    options = _text(tokens[end:])
    if options:
        facts[table, "options"] = options
    return facts


def _is_virtual(sql: str) -> bool:
    return sql.upper().startswith("CREATE VIRTUAL TABLE")


def _is_shadow(table: str, owner: str) -> bool:
    """Tell whether the table holds a virtual table's own data."""
    return table.startswith(f"{owner}_")


def _tokens(sql: str) -> list[_Token]:
    tokens = []
    for found in _TOKEN.finditer(sql):
        if found["string"]:
            tokens.append(_Token(found["string"], bare=False))
        elif found["quoted"]:
            tokens.append(_Token(found["quoted"][1:-1].lower(), bare=False))
        elif found["bare"]:
            tokens.append(_Token(found["bare"].lower(), bare=True))
    return tokens


def _text(tokens: Sequence[_Token]) -> str:
    return " ".join(token.text for token in tokens)


def _parenthesis(tokens: Sequence[_Token], opening: int) -> tuple[list[_Token], int]:
    """Return what stands between a parenthesis and its partner, and where it goes on after that."""
    depth = 0
    for position in range(opening, len(tokens)):
        if tokens[position].bare:
            depth += {"(": 1, ")": -1}.get(tokens[position].text, 0)
        if depth == 0:
            return list(tokens[opening + 1 : position]), position + 1
    return list(tokens[opening + 1 :]), len(tokens)


def _split(tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Yield what stands between the commas."""
    depth = 0
    part: list[_Token] = []
    for token in tokens:
        if token.bare and token.text == "," and depth == 0:
            yield part
            part = []
            continue
        if token.bare:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        part.append(token)
    yield part


def _constraint(tokens: list[_Token]) -> tuple[str, str, str]:
    """Return name, kind and definition of a constraint that stands beside the columns."""
    name = ""
    if tokens[0].text == "constraint":
        name, tokens = tokens[1].text, tokens[2:]
    kind = tokens[0].text
    if kind == "foreign":
        columns, after = _parenthesis(tokens, 2)
        return name, "foreign key", _reference(_text(columns), tokens[after + 1 :])
    if kind == "check":
        return name, "check", _text(tokens[1:])
    return name, "primary key" if kind == "primary" else kind, _text(tokens[2 if kind == "primary" else 1 :])


def _column(tokens: list[_Token]) -> tuple[str, list[tuple[str, str, str]]]:
    """Return a column's definition, and the constraints that stand inside it as if they stood beside it."""
    column, name = tokens[0].text, ""
    definition: list[str] = []
    constraints = []
    position = 1
    while position < len(tokens):
        end = position + 1
        word = tokens[position].text if tokens[position].bare else ""
        if word == "constraint":
            name = tokens[position + 1].text
            position += 2
            continue
        if word in {"primary", "unique"}:
            end = position + (2 if word == "primary" else 1)
            constraints.append((name, "primary key" if word == "primary" else word, f"( {column} )"))
            name = ""
        elif word == "check":
            inside, end = _parenthesis(tokens, position + 1)
            constraints.append((name, "check", f"( {_text(inside)} )"))
            name = ""
        elif word == "references":
            end = _end_of_reference(tokens, position)
            constraints.append((name, "foreign key", _reference(column, tokens[position + 1 : end])))
            name = ""
        elif word == "default" and tokens[position + 1].text == "(":
            inside, end = _parenthesis(tokens, position + 1)
            definition.append(f"default ( {_text(inside)} )")
        elif word in {"default", "not", "collate"}:
            end = position + (3 if tokens[position + 1].text in {"+", "-"} else 2)
            definition.append(_text(tokens[position:end]))
        elif word != "null":
            definition.append(tokens[position].text)
        position = end
    return " ".join(definition), constraints


def _end_of_reference(tokens: list[_Token], position: int) -> int:
    """Return where a column's reference ends: at the next clause that is not one of its own."""
    end = position + 2
    while end < len(tokens):
        token, previous = tokens[end], tokens[end - 1].text
        own = previous == "set" or (token.text == "not" and _text(tokens[end : end + 2]) == "not deferrable")
        if token.bare and token.text in _COLUMN_CLAUSES and not own:
            break
        end = _parenthesis(tokens, end)[1] if token.text == "(" else end + 1
    return end


def _reference(columns: str, tokens: list[_Token]) -> str:
    """Return a foreign key, its clauses in one order and without those that say what goes without saying."""
    target, position = tokens[0].text, 1
    keys = ""
    if position < len(tokens) and tokens[position].text == "(":
        inside, position = _parenthesis(tokens, position)
        keys = _text(inside)
    clauses = re.split(r" (?=on |match |not deferrable|deferrable|initially )", " " + _text(tokens[position:]))
    said = sorted(clause.strip() for clause in clauses if clause.strip() and not clause.endswith("no action"))
    return " ".join([f"( {columns} ) references {target} ( {keys} )", *said])
