"""Statements that are derived from the models once and then handed to the driver as they are.

SQLAlchemy builds and compiles a statement; what comes out, the text with its parameters in order, is kept for each
database. A call only encodes its values, executes, and turns rows into detached models, without a unit of work: one
``INSERT`` costs the driver 29 µs, the same through a compiled Core statement 89 µs, through the ORM 539 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sqlalchemy import Delete, Insert, Select, Update, bindparam, insert, inspect
from sqlalchemy.orm import configure_mappers
from sqlalchemy.orm.state import InstanceState

from agentos_store.engine.columnwise import decode_rows, encode_column, has_longer
from agentos_store.engine.recordset import CompoundText
from agentos_store.errors import InvalidValueError, PayloadTooLargeError
from agentos_store.types import Gate

if TYPE_CHECKING:
    from sqlalchemy import Column, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

    from agentos_store.base import Base

M = TypeVar("M")

Encode = Callable[[object, str], object]
Decode = Callable[[Any], object]


NO_LIMIT = 2**62

Bind = tuple[str | None, Encode, Any, Encode | None]
"""A value's name, its encoder, what errors call it, and the encoder of None where that is no NULL."""


class Statement(Generic[M]):
    """One statement of a repository, compiled at its first use on each database.

    Values are named: ``bindparam("task_id")`` takes ``{"task_id": …}`` of a call. ``returns`` is the model that a
    row becomes; without it a row is a tuple. ``called`` gives the names under which errors speak of values whose
    own names the caller does not know.
    """

    __slots__ = ("called", "element", "lasting", "returns", "writes")

    def __init__(
        self,
        element: Select[Any] | Insert | Update | Delete,
        *,
        returns: type[M] | None = None,
        writes: bool | None = None,
        lasting: bool = True,
        called: Mapping[str, str] | None = None,
    ) -> None:
        self.element = element
        self.called = dict(called or {})
        self.returns = returns
        self.lasting = lasting
        """True for a statement that a module holds: its compiled form is kept for as long as the process lives."""
        self.writes = element.is_dml if writes is None else writes
        """True also for a SELECT over data-modifying common table expressions."""

    def prepare(self, dialect: Dialect, schema: str | None) -> Prepared[M]:
        """Compile the statement for one database."""
        translate = {} if schema is None else {"schema_translate_map": {None: schema}, "render_schema_translate": True}
        # The keywords are the compiler's own.
        compiled = self.element.compile(dialect=dialect, **translate)  # type: ignore[arg-type]
        required = _required(self.element)
        names = tuple(dict.fromkeys(compiled.positiontup or ()))
        binds = [_encoder(compiled, name, dialect, self.called, required) for name in names]
        called = [_measured(compiled.binds[name].type, bind) for name, bind in zip(names, binds, strict=True)]
        places = [names.index(name) for name in compiled.positiontup or ()]
        columns: Sequence[Any] = tuple(self.element.exported_columns) if _returns_rows(self.element) else ()
        return Prepared(compiled.string, binds, called, places, columns, self.returns, dialect, writes=self.writes)


class Prepared(Generic[M]):
    """The text of a statement for one database, and the way its values go in and its rows come out."""

    __slots__ = ("_binds", "_called", "_decoders", "_make", "_places", "text", "writes")

    def __init__(
        self,
        text: str,
        binds: Sequence[Bind],
        called: Sequence[str | None],
        places: Sequence[int],
        columns: Sequence[Column[Any]],
        returns: type[M] | None,
        dialect: Dialect,
        *,
        writes: bool,
    ) -> None:
        self.text = text
        self.writes = writes
        # A value that stands in several places is checked and encoded once.
        self._binds = tuple(binds)
        self._called = tuple(called)
        """By value under which name it is measured; None for one that is not."""
        self._places = None if list(places) == list(range(len(places))) else tuple(places)
        """Where each encoded value goes; None when each goes to one place, in order."""
        decoders = [(place, _decoder(column.type, dialect)) for place, column in enumerate(columns)]
        self._decoders = tuple((place, decode) for place, decode in decoders if decode is not None)
        self._make: Callable[[Sequence[Any]], Any] = tuple
        if returns is not None:
            # By name, for the columns may come out of a common table expression.
            self._make = row_builder(cast("Any", returns), tuple(column.name for column in columns))

    def build(self, row: Sequence[Any]) -> M:
        """Make a row into a model, or into a tuple of decoded values."""
        values = list(row)
        for place, decode in self._decoders:
            if (value := values[place]) is not None:
                values[place] = decode(value)
        return cast("M", self._make(values))

    def build_all(self, rows: Sequence[Sequence[Any]]) -> list[M]:
        """Make each row into a model, or into a tuple of decoded values."""
        return list(map(self._make, decode_rows(rows, self._decoders)))

    def encode(self, values: Mapping[str, object], max_payload: int = NO_LIMIT) -> list[object]:
        """Return the driver's values in the order of the text.

        Raise InvalidValueError for what the store refuses, PayloadTooLargeError for a text of more bytes than this.
        """
        encoded = [
            # A call for each None would cost as much as all the rest.
            extra
            if name is None
            else (None if for_none is None else for_none(None, extra))
            if (value := values[name]) is None
            else encode(value, extra)
            for name, encode, extra, for_none in self._binds
        ]
        few = max_payload // LARGEST_CHARACTER
        for value in encoded:
            # What is no text is of a fixed size.
            if isinstance(value, str) and len(value) > few:
                self._measure(encoded, max_payload)
                break
        return encoded if self._places is None else [encoded[place] for place in self._places]

    def encode_many(self, rows: Sequence[Mapping[str, object]], max_payload: int = NO_LIMIT) -> list[Sequence[object]]:
        """Return the driver's values of each row; raise what ``encode`` raises for the first row that is refused."""
        given = {name: [row[name] for row in rows] for name, *_ in self._binds if name is not None}
        return self.encode_columns(len(rows), given, max_payload)

    def encode_columns(
        self, count: int, given: Mapping[str, Sequence[object]], max_payload: int = NO_LIMIT
    ) -> list[Sequence[object]]:
        """Do what ``encode_many`` does for so many rows, given as the values of each column."""
        few = max_payload // LARGEST_CHARACTER
        try:
            columns = [
                [extra] * count if name is None else encode_column(given[name], encode, extra, for_none)
                for name, encode, extra, for_none in self._binds
            ]
        except InvalidValueError:
            columns = []
        if not columns or any(has_longer(column, few) for column in columns):
            rows = zip(*given.values(), strict=True)
            return [self.encode(dict(zip(given, row, strict=True)), max_payload) for row in rows]
        placed = columns if self._places is None else [columns[place] for place in self._places]
        return list(zip(*placed, strict=True))

    def _measure(self, encoded: list[object], max_payload: int) -> None:
        for value, called in zip(encoded, self._called, strict=True):
            if called is None:
                continue
            if type(value) is str:
                check_size(value, called, max_payload)
            elif isinstance(value, CompoundText):
                for name, part in value.parts:
                    if type(part) is str:
                        check_size(part, name, max_payload)


LARGEST_CHARACTER = 4
"""Bytes in UTF-8."""


def check_size(text: str, name: str, limit: int) -> None:
    """Raise PayloadTooLargeError, under this name, for a text of more bytes in UTF-8 than the limit."""
    if len(text) * LARGEST_CHARACTER > limit and (size := len(text.encode())) > limit:
        raise PayloadTooLargeError(name, size=size, limit=limit)


def plain_json(value: object) -> object:
    """Return a mapping as a dict and a sequence as a list; anything else as it is, for the column's type to refuse."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


def insert_into(model: type[Base], *, returning: Iterable[str] = (), only: Collection[str] | None = None) -> Insert:
    """Return an INSERT with one named value for each column that the database does not number itself.

    With ``only``, for each of these columns; the others are NULL.
    """
    table = model.table()
    columns = {
        c.name: bindparam(c.name, type_=c.type)
        for c in table.columns
        if not numbered_by_database(c) and (only is None or c.name in only)
    }
    statement = insert(table).values(columns)
    names = tuple(returning)
    return statement.returning(*(table.c[name] for name in names)) if names else statement


def numbered_by_database(column: Column[Any]) -> bool:
    """Tell whether the database gives the column its value: an identity."""
    return column.identity is not None


def _returns_rows(element: Select[Any] | Insert | Update | Delete) -> bool:
    return isinstance(element, Select) or bool(element._returning)  # noqa: SLF001  it has no public name


def _encoder(
    compiled: SQLCompiler, name: str, dialect: Dialect, called: Mapping[str, str], required: Collection[str]
) -> Bind:
    """Return how a value goes in; for a constant, None and the value itself."""
    bind = compiled.binds[name]
    encode: Encode
    for_none: Encode | None = None
    if isinstance(bind.type, Gate):
        encode = bind.type.strict_encoder(dialect)
        if bind.type.writes_none:
            for_none = encode
        elif bind.key in required:
            # The type says what is wrong with None, where the database would say it without the value's name.
            for_none = bind.type.check
    else:
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        encode = _as_it_is if process is None else (lambda value, _name: process(value))
    if bind.required:
        return bind.key, encode, called.get(bind.key, bind.key), for_none
    value = bind.effective_value
    return None, encode, None if value is None else encode(value, bind.key), None


def _measured(type_: object, bind: Bind) -> str | None:
    """Return the name under which a value is measured; None for a constant, and for what the library makes itself."""
    name, _, called, _ = bind
    return None if name is None or (isinstance(type_, Gate) and type_.is_derived) else str(called)


def _as_it_is(value: object, _name: str) -> object:
    return value


def _required(element: Select[Any] | Insert | Update | Delete) -> frozenset[str]:
    """Return the names of values that go into columns without NULL: the column's own name, or that after ``new_``."""
    if not isinstance(element, Insert | Update):
        return frozenset()
    names = [column.name for column in element.table.columns if not column.nullable]
    return frozenset(names) | {f"new_{name}" for name in names}


def _decoder(type_: Any, dialect: Dialect) -> Decode | None:
    if isinstance(type_, Gate):
        return type_.decoder(dialect)
    process = type_.dialect_impl(dialect).result_processor(dialect, None)
    return cast("Decode | None", process)


@cache
def row_builder(model: type[M], columns: tuple[str, ...]) -> Callable[[Sequence[Any]], M]:
    """Return what makes a detached, complete model of a row of decoded values that begins with these columns'."""
    shape = _shape(cast("Any", model))
    keys = tuple(shape.keys[name] for name in columns)
    new, mapped, manager, identity = shape.new, shape.mapped, shape.manager, shape.identity

    def build(row: Sequence[Any]) -> M:
        instance: M = new(mapped)
        values = instance.__dict__
        values.update(zip(keys, row))  # noqa: B905  to say that a row may go on costs a tenth of all this
        state = values["_sa_instance_state"] = InstanceState(instance, manager)
        # A key makes the instance detached, as if a session had loaded and expunged it.
        state.key = (mapped, identity(values), None)
        return instance

    return build


def build_model(model: type[M], values: Mapping[str, object]) -> M:
    """Return a detached, complete model made from values by column name, for a row that was just written."""
    shape = _shape(cast("Any", model))
    instance: M = shape.new(shape.mapped)
    own = instance.__dict__
    if len(values) == len(shape.keys) and shape.names.issuperset(values):
        own.update(values)
        for name, attribute in shape.renamed:
            own[attribute] = own.pop(name)
    else:
        own.update(zip(shape.attributes, shape.pick(values), strict=True))
    state = own["_sa_instance_state"] = InstanceState(instance, shape.manager)
    state.key = (shape.mapped, shape.identity(own), None)
    return instance


class _Shape:
    """How instances of a model are made without its constructor.

    They are as ``new_instance()`` of the model's manager makes them, but made without the calls that it takes.
    """

    __slots__ = ("attributes", "identity", "keys", "manager", "mapped", "names", "new", "pick", "renamed")

    def __init__(self, model: type[Any]) -> None:
        # Until the mappers are configured an attribute cannot be read.
        configure_mappers()
        mapper = inspect(model)
        self.keys = {column.name: mapper.get_property_by_column(column).key for column in mapper.columns}
        """Attribute by column."""
        self.names = frozenset(self.keys)
        self.renamed = tuple((name, key) for name, key in self.keys.items() if name != key)
        """Columns whose attributes have other names."""
        self.attributes = tuple(self.keys.values())
        self.pick = itemgetter(*self.keys)
        """Returns the values of the columns, in the order of the attributes; no model has a single column."""
        identity = [self.keys[column.name] for column in mapper.primary_key]
        only = identity[0]
        self.identity: Callable[[Mapping[str, Any]], tuple[Any, ...]]
        """Return the values of the primary key."""
        self.identity = itemgetter(*identity) if len(identity) > 1 else lambda values: (values[only],)
        self.mapped = mapper.class_
        self.manager: Any = mapper.class_manager
        self.new: Callable[[type[Any]], Any] = mapper.class_.__new__


@cache
def _shape(model: type[Any]) -> _Shape:
    return _Shape(model)
