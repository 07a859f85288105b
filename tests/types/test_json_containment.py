"""Containment of documents: the same answer on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos_store.types import Int64, JSONValue, dumps_exact, json_contains

# Few different values, so that many documents do contain the pattern.
numbers = [0, 1, 1.0, 1.5, -0.0, 2**53, 2**53 + 1, float(2**53), 1e16, 10**16]
scalars = st.sampled_from([None, True, False, *numbers, "a", "1", ""])

documents = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=10,
)


@st.composite
def parts(draw: st.DrawFn, document: Any) -> Any:
    """Return something that the document contains, or nearly does."""
    if draw(st.integers(0, 9)) == 0:
        return draw(documents)
    if isinstance(document, dict):
        keys = draw(st.lists(st.sampled_from(sorted(document)), unique=True)) if document else []
        return {key: draw(parts(document[key])) for key in keys}
    if isinstance(document, list):
        chosen = draw(st.lists(st.sampled_from(document), max_size=3)) if document else []
        return [draw(parts(element)) for element in chosen]
    return document


pairs = documents.flatmap(lambda document: st.tuples(st.just(document), parts(document) | documents))


@given(batch=st.lists(pairs, min_size=20, max_size=20))
@settings(max_examples=30, deadline=None)
def test_the_function_answers_as_postgresql_does(engines: dict[str, sa.Engine], batch: list[tuple[Any, Any]]) -> None:
    texts = [(dumps_exact(document, "d"), dumps_exact(pattern, "p")) for document, pattern in batch]
    with engines["postgresql"].connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT d::jsonb @> p::jsonb FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t(d, p, n) ORDER BY n",
            ([d for d, _ in texts], [p for _, p in texts]),
        )
        expected = [row[0] for row in rows]
    assert [json_contains(d, p) for d, p in texts] == [int(answer) for answer in expected]


@pytest.mark.parametrize(
    ("document", "pattern", "answer"),
    [
        ("[1,2,3]", "2", 1),
        ("2", "[2]", 0),
        ('{"a":1}', "1", 0),
        ("[[1,2]]", "[1]", 0),
        ("[[1,2]]", "[[2]]", 1),
        ("[[2]]", "[2]", 0),
        ("[1,1]", "[1,1,1]", 1),
        ("[]", "[]", 1),
        ("{}", "[]", 0),
        ('{"a":[]}', '{"a":{}}', 0),
        ("[true]", "[1]", 0),
        ("[0]", "[false]", 0),
        ("1.0", "1", 1),
        ("[null]", "null", 1),
        ("9007199254740993", "9007199254740992.0", 0),
        ('"a"', '"a"', 1),
    ],
)
def test_the_rules_of_containment(engines: dict[str, sa.Engine], document: str, pattern: str, answer: int) -> None:
    assert json_contains(document, pattern) == answer
    with engines["postgresql"].connect() as connection:
        sql = "SELECT (%s::jsonb @> %s::jsonb)::int"
        assert connection.exec_driver_sql(sql, (document, pattern)).scalar_one() == answer


def test_null_contains_nothing_and_is_not_false() -> None:
    assert json_contains(None, "1") is None
    assert json_contains("1", None) is None


def test_deep_documents_are_compared_too() -> None:
    deep = "[" * 500 + "]" * 500

    def call(levels: int) -> int | None:
        return call(levels - 1) if levels else json_contains(deep, deep)

    assert call(600) == 1


def test_a_column_is_filtered_alike(engines: dict[str, sa.Engine]) -> None:
    columns: list[sa.Column[Any]] = [sa.Column("id", Int64(), primary_key=True), sa.Column("tags", JSONValue("array"))]
    table = sa.Table("tagged", sa.MetaData(), *columns, sa.Column("other", JSONValue()), prefixes=["TEMPORARY"])
    rows = [["a", {"k": 1e16}], ["b", None], [], None]
    for engine in engines.values():
        with engine.connect() as connection:
            table.create(connection)
            connection.execute(table.insert(), [{"id": i, "tags": tags, "other": ["a"]} for i, tags in enumerate(rows)])

            def matching(pattern: Any, connection: sa.Connection = connection, **values: Any) -> list[int]:
                query = sa.select(table.c.id).where(table.c.tags.contains(pattern)).order_by(table.c.id)
                return list(connection.scalars(query, values))

            assert matching(["a"]) == [0]
            assert matching("b") == [1]
            assert matching([{"k": 10**16}]) == [0]
            assert matching(None) == [1]
            assert matching([]) == [0, 1, 2]
            assert matching({}) == []
            assert matching(sa.bindparam("tags"), tags=["b"]) == [1]
            assert matching(table.c.other) == [0]
            negated = sa.select(table.c.id).where(~table.c.tags.contains(["a"])).order_by(table.c.id)
            assert list(connection.scalars(negated)) == [1, 2]


def test_postgresql_is_asked_with_its_operator(engines: dict[str, sa.Engine]) -> None:
    condition = sa.column("tags", JSONValue()).contains(["a"])
    compiled = {name: str(condition.compile(dialect=engine.dialect)) for name, engine in engines.items()}
    assert compiled == {"sqlite": "agentos_json_contains(tags, ?)", "postgresql": "(tags @> %(param_1)s::JSONB)"}
