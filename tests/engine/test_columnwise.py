from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos_store.conversations.message_models import Message
from agentos_store.engine.columnwise import encode_column
from agentos_store.engine.sqlite.connection import DIALECT
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.errors import InvalidValueError, PayloadTooLargeError
from agentos_store.types import ExactText, JSONValue

INSERT: Any = Statement(insert_into(Message)).prepare(DIALECT, None)
ROW = dict.fromkeys(Message.table().columns.keys()) | {
    "id": "a",
    "session_id": "s",
    "seq": 0,
    "from_generation": 0,
    "role": "user",
    "content": ExactText('"hello"'),
    "content_types": 1,
    "token_count": 0,
    "metadata": {},
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "seq": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, True, 1.0]),
    "role": st.sampled_from(["user", "tool", "", None, "\0"]),
    "metadata": st.sampled_from([{}, {"a": 1}, {"a": 1.0}, {"a": True}, [], None]),
    "cost": st.sampled_from([None, Decimal(1), Decimal("1.50"), 1, 1.0]),
    "name": st.none() | st.text(max_size=3) | st.just("x" * 2000),
    "content": st.none() | st.text(max_size=3) | st.just("y" * 2000),
}


def outcome(work: Any) -> Any:
    try:
        return [list(row) for row in work()]
    except (InvalidValueError, PayloadTooLargeError) as error:
        return type(error), str(error)


@given(rows=st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=5))
def test_rows_encoded_together_are_encoded_as_each_by_itself(rows: list[dict[str, Any]]) -> None:
    whole = [ROW | row for row in rows]
    one_by_one = outcome(lambda: [INSERT.encode(row, 1024) for row in whole])
    together = outcome(lambda: INSERT.encode_many(whole, 1024))
    assert together == one_by_one
    if isinstance(together, list):
        assert [list(map(type, row)) for row in together] == [list(map(type, row)) for row in one_by_one]


def test_equal_values_of_other_types_are_not_taken_for_the_same() -> None:
    encode = JSONValue().strict_encoder(DIALECT)
    assert encode_column([1, True, 1.0, 1], encode, "v", None) == ["1", "true", "1.0", "1"]


@pytest.mark.parametrize("value", [{}, []])
def test_an_empty_object_is_no_array(value: object) -> None:
    kind = "array" if value == {} else "object"
    with pytest.raises(InvalidValueError, match=f"not a JSON {kind}"):
        JSONValue(kind).strict_encoder(DIALECT)(value, "v")  # type: ignore[arg-type]  # one of the two
