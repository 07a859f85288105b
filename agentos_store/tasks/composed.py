"""Audit entries that are composed by the very statement that chooses their tasks, because nobody knows them before.

A claim takes whatever task is the most urgent one, so neither its key nor its token can be in what Python hashes. The
parts of the entry around the two come from Python, and the database puts them together, to the letter as
``content_hash`` does.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import CTE, Integer, String, bindparam, case, cast, func, literal_column, or_, select
from sqlalchemy import Text as PlainText
from sqlalchemy.dialects.postgresql import aggregate_order_by

from agentos_store.tasks.trail import AUDITS, added_entry, moved_head
from agentos_store.tasks.transition import EVENT_TYPE
from agentos_store.types import dumps_exact, to_text

_TEXT = PlainText()


def with_token(payload: Mapping[str, Any], token: int) -> dict[str, Any]:
    """Return the payload as the database composes it."""
    return {**payload, "token": token}


def parts(name: str, payload: Mapping[str, Any], time: dt.datetime, *, level: str = "info") -> dict[str, str]:
    """Return the values of one kind of entry about a step; to its payload the token will be added."""
    text = dumps_exact(payload, "payload")[:-1] + ',"token":'
    return {
        f"{name}_payload": text,
        f"{name}_before": f'", null, "{level}", "{EVENT_TYPE}", {json.dumps(text)[:-1]}',
        f"{name}_after": f'}}", null, null, null, null, "{to_text(time)}"]',
        f"{name}_level": level,
    }


def entries(moved: CTE, kinds: Mapping[str, Any], at: Any, *, token: Any) -> CTE:
    """Return the part of a statement that adds an entry for each task that is moved, with its token.

    ``kinds`` gives the condition, on a row of ``moved``, of each kind of entry; the last one is for all others.
    """
    # Names are short and constants stand in the text: psycopg keeps a statement prepared on its side only up to 4,096
    # characters and 50 values, and beyond takes longer to look through it than the server to carry it out.
    token = cast(token, _TEXT)

    def chosen(part: str) -> Any:
        binds = {name: bindparam(f"{name}_{part}", type_=_TEXT) for name in kinds}
        *some, last = kinds
        return case(*((kinds[name], binds[name]) for name in some), else_=binds[last]) if some else binds[last]

    said = select(
        moved.c.task_id,
        chosen("level").label("level"),
        chosen("payload").op("||")(token).op("||")(_fixed("}")).label("payload"),
        _digest(
            _fixed('["')
            .op("||")(_quoted(moved.c.task_id))
            .op("||")(chosen("before"))
            .op("||")(token)
            .op("||")(chosen("after"))
        ).label("digest"),
    ).cte("s")
    # The row that is in the way is the one of the same task.
    own = select(said.c.digest).where(said.c.task_id == literal_column("excluded.task_id", said.c.task_id.type))
    head = moved_head(select(said.c.task_id), said.c.digest, own.scalar_subquery(), name="h")
    fields = {
        "task_id": said.c.task_id,
        "level": said.c.level,
        "payload": cast(said.c.payload, AUDITS.c.payload.type),
        "event_type": literal_column(f"'{EVENT_TYPE}'", AUDITS.c.event_type.type),
        "created_at": at,
    }
    return added_entry(fields, head, said, where=said.c.task_id == head.c.task_id).cte("e")


def _fixed(text: str) -> Any:
    """Return a constant that is part of the statement's text."""
    return literal_column("'" + text.replace("'", "''") + "'", String())


def _number(value: int) -> Any:
    return literal_column(str(value), Integer())


def _digest(content: Any) -> Any:
    return func.encode(func.sha256(func.convert_to(content, _fixed("UTF8"))), _fixed("hex"))


def _quoted(key: Any) -> Any:
    """Return the SQL of a key as JSON has it between its quotes: plain ASCII, the rest escaped by UTF-16 units."""
    split = (
        func.regexp_split_to_table(key, _fixed("")).table_valued("l", with_ordinality="p", name="k").render_derived()
    )
    letter, code = split.c.l, func.ascii(split.c.l)

    def unit(number: Any) -> Any:
        return _fixed("\\u").op("||")(func.lpad(func.to_hex(number), _number(4), _fixed("0")))

    above = code - _number(0x10000)
    pair = unit(_number(0xD800) + above.op(">>")(_number(10))).op("||")(
        unit(_number(0xDC00) + above.op("&")(_number(0x3FF)))
    )
    escaped = case(
        (or_(letter == _fixed('"'), letter == _fixed("\\")), _fixed("\\").op("||")(letter)),
        (code < _number(0x7F), letter),
        (code < _number(0x10000), unit(code)),
        else_=pair,
    )
    # Almost every key is plain.
    plain = key.op("~")(_fixed(r"^[ !#-\[\]-~]*$"))
    joined = select(func.string_agg(escaped, aggregate_order_by(_fixed(""), split.c.p)))
    return case((plain, key), else_=joined.scalar_subquery())
