"""JSONValue and ExactJSON."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from agentos_store.errors import InvalidValueError
from agentos_store.types import ExactJSON, Gate, Int64, JSONValue, dumps_exact, loads_exact

RoundTrip = Callable[[Gate[Any], Any], dict[str, Any]]

NUMBERS = [1e15, 1e16, 1e22, 1e23, 1e308, 5e-324, 1e-7, 0.1, 123456789012345680.0, -1.5e300, 2**80, 0, 0.0, 10**4299]

plain_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["1e+16", "\\u0000", "\\", '\\"', "[[[", "{{{", "\\\\u0000"]
)
wild_texts = st.text(st.characters() | st.sampled_from("\0\ud800\udfff\\u0\"'"), max_size=8).filter(
    lambda text: not any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in zip(text, text[1:]))  # noqa: B905, RUF007
)


def documents(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    floats = st.floats(allow_nan=False, allow_infinity=False)
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), floats, st.sampled_from(NUMBERS), texts)
    return st.recursive(
        scalars,
        lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
        max_leaves=12,
    )


def nested(depth: int, *, of: str = "array") -> Any:
    """Return arrays or objects within each other, built without recursion."""
    value: Any = {} if of == "object" else []
    for _ in range(depth - 1):
        value = {"k": value} if of == "object" else [value]
    return value


def same(left: Any, right: Any) -> bool:
    """Tell whether two documents are equal with the types of everything in them."""
    todo = [(left, right)]
    while todo:
        one, other = todo.pop()
        if type(one) is not type(other):
            return False
        if isinstance(one, dict):
            if one.keys() != other.keys():
                return False
            todo += [(one[key], other[key]) for key in one]
        elif isinstance(one, list):
            if len(one) != len(other):
                return False
            todo += zip(one, other, strict=True)
        elif one != other:
            return False
    return True


@given(value=documents(plain_texts))
@settings(max_examples=100, deadline=None)
def test_a_value_comes_back_equal_with_its_types(round_trip: RoundTrip, value: Any) -> None:
    for found in round_trip(JSONValue(), value).values():
        assert same(found, value)


EDGES = [*NUMBERS, -0.0, "", "\x7f\u2028天🌧", [], {}, [None], {"": False}, nested(500)]


@pytest.mark.parametrize("value", EDGES, ids=range(len(EDGES)))
def test_each_of_these_values_comes_back_through_both_types(round_trip: RoundTrip, value: Any) -> None:
    for column_type in (JSONValue(), ExactJSON()):
        for found in round_trip(column_type, value).values():
            assert same(found, value)


@given(value=documents(wild_texts))
@settings(max_examples=100, deadline=None)
def test_exact_json_comes_back_as_it_was_given(round_trip: RoundTrip, value: Any) -> None:
    text = dumps_exact(value, "content")
    for found in (loads_exact(text), *round_trip(ExactJSON(), value).values()):
        if value is not None:
            assert same(found, value)
            # The order of keys and the sign of zero are in the text.
            assert dumps_exact(found, "content") == text


def test_exact_json_stores_the_same_text_on_both(engines: dict[str, sa.Engine]) -> None:
    value = {"z": 1e16, "a": [-0.0, 0, False, "", None], "天": "\0\ud83d é", "b": 1}
    text = '{"z":1e+16,"a":[-0.0,0,false,"",null],"天":"\\u0000\\ud83d é","b":1}'
    assert dumps_exact(value, "content") == text
    for engine in engines.values():
        with engine.connect() as connection:
            stored = sa.cast(sa.bindparam("value", type_=ExactJSON()), sa.Text)
            assert connection.scalar(sa.select(stored), {"value": value}) == text


def test_json_null_is_not_sql_null(engines: dict[str, sa.Engine]) -> None:
    for engine in engines.values():
        with engine.connect() as connection:
            for column_type, is_null in ((ExactJSON(), True), (ExactJSON(none_as_null=False), False)):
                value = sa.bindparam("value", type_=column_type)
                row = connection.execute(sa.select(value, value.is_(None)), {"value": None}).one()
                assert row[0] is None
                assert bool(row[1]) is is_null


def test_a_model_tells_json_null_from_nothing(engines: dict[str, sa.Engine]) -> None:
    class Base(DeclarativeBase):
        pass

    class Message(Base):
        __tablename__ = "null_messages"
        id: Mapped[int] = mapped_column(Int64(), primary_key=True)
        content: Mapped[Any] = mapped_column(ExactJSON(none_as_null=False), nullable=True)

    for engine in engines.values():
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Message(id=1, content=None), Message(id=2), Message(id=3, content="null")])
            session.commit()
            contents = session.scalars(sa.select(Message.content).order_by(Message.id)).all()
            assert contents == [None, None, "null"]
            absent = session.scalars(sa.select(Message.id).where(Message.content.is_(None))).all()
            assert absent == [2]
        Base.metadata.drop_all(engine)


class Opaque:
    """No JSON."""


REFUSED_BY_BOTH = [
    (math.nan, "metadata"),
    ({"a": [1, math.inf]}, "metadata.a[1]"),
    ({"scores": [0, 1, 2, -math.inf]}, "metadata.scores[3]"),
    ((1, 2), "metadata"),
    ({"we ird": (1,)}, 'metadata["we ird"]'),
    ({'a"b': (1,)}, 'metadata["a\\"b"]'),
    ({"天": {1: "a"}}, "metadata.天"),
    ({"a": {None: 1, "b": 2}}, "metadata.a"),
    ({1: "a", "1": "b"}, "metadata"),
    ([b"bytes"], "metadata[0]"),
    ([{1, 2}], "metadata[0]"),
    ({"a": {"b": Opaque()}}, "metadata.a.b"),
    ([Decimal(1)], "metadata[0]"),
    ({"n": [10**4300]}, "metadata.n[0]"),
    ({"n": [-(10**4300)]}, "metadata.n[0]"),
    (["\ud83d\ude00"], None),
    ({"\ud83d\ude00": 1}, None),
    (nested(501), "metadata" + "[0]" * 500),
    (nested(501, of="object"), "metadata" + ".k" * 500),
    ([[0]] * 300 + [nested(501)], "metadata[300]" + "[0]" * 499),
    (nested(20_000), "metadata" + "[0]" * 500),
    (nested(200_000, of="object"), "metadata" + ".k" * 500),
]


@pytest.mark.parametrize(("value", "path"), REFUSED_BY_BOTH, ids=range(len(REFUSED_BY_BOTH)))
def test_what_would_come_back_changed_is_refused_with_its_path(value: Any, path: str | None) -> None:
    faults = []
    for column_type in (JSONValue(), ExactJSON()):
        with pytest.raises(InvalidValueError) as caught:
            column_type.check(value, "metadata")
        faults.append(caught.value)
    if path is not None:
        assert [fault.name for fault in faults] == [path, path]
        assert faults[0].why == faults[1].why


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for column_type in (JSONValue(), ExactJSON()):
        with pytest.raises(InvalidValueError, match="nested deeper than 500 levels"):
            column_type.check(circle, "metadata")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("\0", "metadata"),
        (["a\0"], "metadata[0]"),
        ({"a": {"\0": 1}}, 'metadata.a["\\u0000"]'),
        ({"\ud83d": 1}, 'metadata["\\ud83d"]'),
        (["\\u0000", "\\\0"], "metadata[1]"),
        (["天", "天\udc00"], "metadata[1]"),
        (["\ud800\udc00"], "metadata[0]"),
    ],
)
def test_jsonb_holds_neither_nul_nor_surrogates(value: Any, path: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        JSONValue().check(value, "metadata")
    assert caught.value.name == path
    # The message can be printed.
    assert str(caught.value).encode()


def test_exact_json_refuses_a_pair_that_json_cannot_tell_from_one_character() -> None:
    with pytest.raises(InvalidValueError, match=r"^content\[1\]: holds a high surrogate directly before a low one"):
        dumps_exact(["\U0001f600", "a\ud83d\ude00"], "content")


def test_a_kind_restricts_the_top_level_only() -> None:
    assert JSONValue("object").check({"a": []}, "metadata") == {"a": []}
    assert JSONValue(kind="array").check([{}], "tags") == [{}]
    for column_type, value in ((JSONValue("object"), []), (JSONValue("array"), {}), (JSONValue("array"), "a")):
        with pytest.raises(InvalidValueError, match="not a JSON"):
            column_type.check(value, "metadata")


def test_a_subclass_of_dict_or_list_comes_back_plain(round_trip: RoundTrip) -> None:
    for found in round_trip(ExactJSON(), OrderedDict(b=1, a=2)).values():
        assert list(found.items()) == [("b", 1), ("a", 2)]
        assert type(found) is dict


def test_wide_values_are_not_deep() -> None:
    wide = [{"a": [i]} for i in range(1_000)] + [nested(499)]
    assert JSONValue().check(wide, "metadata") is wide


def test_the_deepest_value_passes_through_a_stack_that_is_nearly_full() -> None:
    value = nested(500, of="object")

    def call(levels: int) -> str:
        return call(levels - 1) if levels else dumps_exact(value, "content") + dumps_exact(decoded(value), "content")

    def decoded(value: object) -> object:
        return loads_exact(dumps_exact(value, "content"))

    room = sys.getrecursionlimit() - len(_frames())
    assert len(call(room - 60)) == 2 * len(dumps_exact(value, "content"))


def test_an_interpreter_that_reads_longer_integers_still_writes_none() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(InvalidValueError, match="more than 4,300 digits"):
            JSONValue().check([10**4300], "metadata")
        assert JSONValue().check([10**4299], "metadata") == [10**4299]
    finally:
        sys.set_int_max_str_digits(before)


def test_an_interpreter_that_reads_only_shorter_integers_writes_none_of_the_others() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(1_000)
    try:
        with pytest.raises(InvalidValueError, match="would not come back"):
            JSONValue().check([10**4000], "metadata")
    finally:
        sys.set_int_max_str_digits(before)


def test_what_a_value_says_about_itself_is_not_believed() -> None:
    class Odd(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return False

    with pytest.raises(InvalidValueError, match="would not come back"):
        JSONValue().check([Odd("a")], "metadata")


def test_what_only_passes_for_a_string_is_none() -> None:
    standing_in = Mock(spec=str)
    assert isinstance(standing_in, str)
    for value in (standing_in, [standing_in], {"a": standing_in}, {standing_in: "a"}, Mock(spec=dict), Mock(spec=int)):
        for kind in (ExactJSON(), JSONValue()):
            with pytest.raises(InvalidValueError):
                kind.check(value, "content")


def test_large_floats_are_written_out_and_strings_are_left_alone() -> None:
    encode = JSONValue().encoder(sa.create_engine("sqlite://", poolclass=NullPool).dialect)
    assert encode([1.5e16, '1e+16", 1e+16', -1e16, 10**16], "metadata") == (
        '[15000000000000000.0,"1e+16\\", 1e+16",-10000000000000000.0,10000000000000000]'
    )
    assert encode({"1e+16": "天"}, "metadata") == json.dumps({"1e+16": "天"}, ensure_ascii=False, separators=(",", ":"))


def _frames() -> list[object]:
    return [frame for frame, _ in traceback.walk_stack(None)]
