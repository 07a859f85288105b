"""Messages that are about to be written: what a caller gives, checked and complete but for their places."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar, overload

from agentos_store.conversations.content import read_content
from agentos_store.conversations.message_models import Message
from agentos_store.engine.session import Session
from agentos_store.engine.statement import build_model, plain_json
from agentos_store.errors import InvalidValueError, PayloadTooLargeError
from agentos_store.types import Gate, Int64, Money, loads_exact, new_ulids, quick_text

MESSAGES = Message.table()
C = TypeVar("C", int, Decimal)

FIELDS = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "agent_id",
        "model",
        "token_count",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cost",
        "metadata",
        "idempotency_key",
        "id",
        "created_at",
    }
)
"""What a mapping that stands for a message may hold."""

MOST_TOKENS = 10**12
MOST_COST = Decimal(10**3)
"""No message comes near, and a session's totals stay far below what 64 bits hold."""

PLACE = frozenset({"seq", "from_generation"})
REQUIRED = frozenset(c.name for c in MESSAGES.c if not c.nullable) - PLACE
"""Columns that each message has a value in, beside its place."""

_BLANK = dict.fromkeys(c.name for c in MESSAGES.c if c.name not in PLACE)

NOTHING = Decimal(0)
_INT64, _MONEY = Int64(), Money()


class Draft:
    """One message that is about to be written."""

    __slots__ = ("_path", "_plain", "cost", "row", "tokens", "values")

    def __init__(
        self,
        session: Session,
        session_id: str,
        values: Mapping[str, Any],
        path: str = "",
        now: dt.datetime | None = None,
        key: str | None = None,
    ) -> None:
        self.values = values
        """What the caller gave, by name."""
        # Every field has a column of its name.
        row: dict[str, Any] = {**_BLANK, **values}
        content = row["content"]
        self._plain: str | None = content if type(content) is str else None
        """The content where nobody can change it, so that it need not be read again."""
        try:
            read = read_content(row["role"], content, row["tool_calls"], session.max_payload)
        except InvalidValueError as error:
            raise named(error, path) from None
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            if (count := row[name]) is not None:
                _counted(count, name, _INT64, MOST_TOKENS, path)
        tokens = row["token_count"]
        if tokens is None:
            tokens = (row["input_tokens"] or 0) + (row["output_tokens"] or 0)
        self.tokens = _counted(tokens, "token_count", _INT64, MOST_TOKENS, path)
        """What the message counts for."""
        cost, time, metadata = row["cost"], row["created_at"], row["metadata"]
        self.cost = NOTHING
        """What it cost; nothing where nobody said."""
        if cost is not None:
            row["cost"] = self.cost = _counted(cost, "cost", _MONEY, MOST_COST, path)
        row["session_id"] = session_id
        row["content"], row["tool_calls"], row["content_types"], row["tool_names"] = read
        row["token_count"] = self.tokens
        row["metadata"] = {} if metadata is None else plain_json(metadata)
        row["created_at"] = checked(time, "created_at", path) if time is not None else now or session.now()
        if row["id"] is None:
            row["id"] = key or session.new_ulid()
        self.row = row
        """The values by column, without the place."""
        self._path = path

    def check(self) -> None:
        """Raise the error of the first column that refuses its value, named after the message among several."""
        for name in _NAMED:
            if self.row[name] is not None or name == "role":
                checked(self.row[name], name, self._path)

    @property
    def idempotency_key(self) -> str | None:
        """Return the caller's key for this message."""
        key: str | None = self.row["idempotency_key"]
        return key

    @property
    def names(self) -> frozenset[str]:
        """Return the columns in which there is a value."""
        return REQUIRED.union([name for name, value in self.row.items() if value is not None])

    def placed(self, seq: int, generation: int) -> dict[str, Any]:
        """Return the values by column, with the place."""
        return {**self.row, "seq": seq, "from_generation": generation}

    def settle(self) -> None:
        """Take a copy of what is nested in the metadata: the caller may change it before the row is built."""
        metadata = self.row["metadata"]
        if metadata and any(isinstance(value, dict | list) for value in metadata.values()):
            self.row["metadata"] = loads_exact(quick_text(metadata, "metadata"))

    def built(self, seq: int, generation: int) -> Message:
        """Return the row that was written; what it says is read out of what was stored."""
        row = self.placed(seq, generation)
        row["content"] = loads_exact(row["content"]) if self._plain is None else self._plain
        if (calls := row["tool_calls"]) is not None:
            row["tool_calls"] = loads_exact(calls)
        return build_model(Message, row)


class Appended(Sequence[Message]):  # noqa: PLW1641  no hash, as a list has none
    """Messages that were just written, in order; each becomes an object when it is first looked at.

    Equal to a list of the same objects, as a list is.
    """

    def __init__(self, drafts: Sequence[Draft], seq: int, generation: int) -> None:
        for draft in drafts:
            draft.settle()
        self._drafts = drafts
        self._place = seq, generation
        self._built: dict[int, Message] = {}

    def __len__(self) -> int:
        return len(self._drafts)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        found = range(len(self._drafts))[index]
        if isinstance(found, range):
            return [self[i] for i in found]
        message = self._built.get(found)
        if message is None:
            seq, generation = self._place
            # Of two threads that look at once both get the one that is there first.
            message = self._built.setdefault(found, self._drafts[found].built(seq + found, generation))
        return message

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, list | Appended) else NotImplemented

    def __repr__(self) -> str:
        return repr(list(self))


def read_drafts(session: Session, session_id: str, messages: Sequence[Any]) -> list[Draft]:
    """Return the drafts of messages, each a mapping or a Message; errors name the place of the one that is meant."""
    given = as_mappings(messages)
    # What one call writes was written at one time; the identifiers, which grow, tell the order.
    now = session.now()
    keys: list[str] = session.keep(new_ulids(len(given)))
    return [
        Draft(session, session_id, values, f"messages[{place}]", now, key)
        for place, (values, key) in enumerate(zip(given, keys, strict=True))
    ]


def as_mappings(messages: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return messages, each a mapping or a Message, as mappings by our names."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise InvalidValueError("messages", "must be a list")
    return [_as_mapping(given, place) for place, given in enumerate(messages)]


def _as_mapping(given: object, place: int) -> Mapping[str, Any]:
    if isinstance(given, Message):
        return _mapping_of(given)
    if not isinstance(given, Mapping):
        why = "must be a mapping such as {'role': 'user', 'content': '…'}, or a Message"
        raise InvalidValueError(f"messages[{place}]", why)
    if not FIELDS.issuperset(given):
        unknown = min(map(str, given.keys() - FIELDS))
        known = ", ".join(sorted(FIELDS))
        raise InvalidValueError(f"messages[{place}][{unknown!r}]", f"there is no such field; there are {known}")
    return given


def _mapping_of(message: Message) -> dict[str, Any]:
    """Return what a row says. Its key, its time and the caller's key for it belong to that row alone."""
    values = {name: getattr(message, name) for name in FIELDS - {"metadata", "idempotency_key", "id", "created_at"}}
    return {**values, "metadata": message.metadata_}


_NAMED = ("role", "name", "tool_call_id", "agent_id", "model", "metadata", "idempotency_key", "id")


@contextmanager
def naming(drafts: Iterable[Draft]) -> Iterator[None]:
    """Let an error tell which of several messages is meant, which is looked for only when there is one."""
    try:
        yield
    except InvalidValueError as error:
        if not isinstance(error, PayloadTooLargeError):
            for draft in drafts:
                draft.check()
        raise


_CHECKS = {c.name: c.type.check for c in MESSAGES.c if isinstance(c.type, Gate)}


def checked(value: Any, name: str, path: str = "") -> Any:
    """Return a value as its column takes it."""
    try:
        return _CHECKS[name](value, name)
    except InvalidValueError as error:
        raise named(error, path) from None


def _counted(value: Any, name: str, type_: Gate[C], most: C, path: str) -> C:
    if type(value) is int and type_ is _INT64 and 0 <= value <= most:
        return value
    try:
        checked = type_.check(value, name)
    except InvalidValueError as error:
        raise named(error, path) from None
    if not 0 <= checked <= most:
        raise named(InvalidValueError(name, f"must be from 0 to {most:,}"), path)
    return checked


def named(error: InvalidValueError, path: str) -> InvalidValueError:
    """Return the error with the path to what it names."""
    if path:
        error.name = f"{path}.{error.name}"
        error.args = (f"{error.name}: {error.why}",)
    return error
