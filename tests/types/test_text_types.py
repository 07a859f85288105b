"""Text, Identifier, ErrorText and Choice."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos_store.errors import InvalidValueError
from agentos_store.types import Choice, ErrorText, Gate, Identifier, Text

RoundTrip = Callable[[Gate[Any], Any], dict[str, Any]]

storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(text=storable)
@settings(max_examples=50, deadline=None)
def test_text_comes_back_as_it_was_written(round_trip: RoundTrip, text: str) -> None:
    assert round_trip(Text(), text) == {"sqlite": text, "postgresql": text}


@given(text=st.text(st.one_of(st.characters(), st.sampled_from("\0\ud800\udbff\udc00\udfffa天"))))
def test_text_is_refused_exactly_when_it_holds_nul_or_a_surrogate(text: str) -> None:
    bad = [i for i, c in enumerate(text) if c == "\0" or "\ud800" <= c <= "\udfff"]
    if not bad:
        assert Text().check(text, "title") == text
        return
    with pytest.raises(InvalidValueError, match=rf"^title: holds .* at character {bad[0]}$"):
        Text().check(text, "title")


@pytest.mark.parametrize("value", [1, b"text", None.__class__, ["text"], 1.5, True])
def test_text_is_a_str_and_nothing_else(value: object) -> None:
    with pytest.raises(InvalidValueError, match="not str"):
        Text().check(value, "title")


def test_a_subclass_of_str_becomes_a_plain_str() -> None:
    class Colour(str, enum.Enum):  # noqa: UP042  its str() is not its value
        RED = "red"

    for column_type in (Text(), Identifier(), ErrorText(), Choice("red")):
        assert type(column_type.check(Colour.RED, "colour")) is str
        assert column_type.check(Colour.RED, "colour") == "red"


def test_lengths_are_counted_in_characters() -> None:
    title = Text(min_length=1, max_length=3)
    assert title.check("天气🌧", "title") == "天气🌧"
    with pytest.raises(InvalidValueError, match=r"^title: 4 characters are more than the limit of 3$"):
        title.check("天气🌧!", "title")
    with pytest.raises(InvalidValueError, match=r"^title: is empty$"):
        title.check("", "title")
    with pytest.raises(InvalidValueError, match=r"^title: 1 characters are fewer than the least, 2$"):
        Text(2).check("a", "title")


@pytest.mark.parametrize("key", ["parent/fork-1795240070871", "a", "a" * 255, "天气 🌧", "a\u200db", "a\u00a0b"])
def test_an_identifier_from_outside_is_taken_as_it_is(key: str) -> None:
    assert Identifier().check(key, "agent_id") == key


@given(prefix=st.text("ab天", max_size=3), code=st.one_of(st.integers(0, 0x1F), st.integers(0x7F, 0x9F)))
def test_an_identifier_holds_no_control_character(prefix: str, code: int) -> None:
    with pytest.raises(InvalidValueError, match=r"^agent_id: holds "):
        Identifier().check(prefix + chr(code), "agent_id")


@pytest.mark.parametrize("key", ["", "a" * 256])
def test_an_identifier_has_1_to_255_characters(key: str) -> None:
    with pytest.raises(InvalidValueError):
        Identifier().check(key, "agent_id")


@given(text=st.text(st.one_of(st.characters(), st.sampled_from("\0\ud800\udfff"))))
@settings(max_examples=50, deadline=None)
def test_an_error_text_is_repaired_and_stored(round_trip: RoundTrip, text: str) -> None:
    repaired = "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)
    assert round_trip(ErrorText(), text) == {"sqlite": repaired, "postgresql": repaired}


def test_an_error_text_is_still_a_str_within_its_length() -> None:
    for value in (b"Traceback", "\0" * 4):
        with pytest.raises(InvalidValueError):
            ErrorText(max_length=3).check(value, "error_message")


def test_a_choice_names_the_words_that_it_allows() -> None:
    status = Choice("active", "archived")
    assert status.values == ("active", "archived")
    assert status.check("archived", "status") == "archived"
    for value in ("gone", ""):
        with pytest.raises(InvalidValueError, match=r"^status: is not one of active, archived$"):
            status.check(value, "status")
    with pytest.raises(InvalidValueError, match=r"^status: is of type list, not str$"):
        status.check(["active"], "status")


def test_two_choices_do_not_share_a_compiled_statement(engines: dict[str, sa.Engine]) -> None:
    for engine in engines.values():
        with engine.connect() as connection:
            for column_type, word in (
                (Choice("a"), "a"),
                (Choice("b"), "b"),
                (Text(max_length=1), "c"),
                (Text(), "dd"),
            ):
                assert connection.scalar(sa.select(sa.bindparam("word", type_=column_type)), {"word": word}) == word


def test_text_sorts_by_code_point_on_both_databases(engines: dict[str, sa.Engine]) -> None:
    words = ["a", "B", "ä", "z", "Z", "天", "_", "-a", "🌧", "\uffff"]
    table = sa.Table("words", sa.MetaData(), sa.Column("word", Text()), prefixes=["TEMPORARY"])
    for engine in engines.values():
        with engine.connect() as connection:
            table.create(connection)
            connection.execute(table.insert(), [{"word": word} for word in words])
            assert connection.scalars(sa.select(table.c.word).order_by(table.c.word)).all() == sorted(words)
            found = connection.scalars(sa.select(table.c.word).where(table.c.word < "a")).all()
            assert set(found) == {word for word in words if word < "a"}
