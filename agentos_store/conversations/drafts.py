"""Messages that are about to be written: what a caller gives, checked and complete but for their places."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar

from agentos_store.conversations.content import read_content
from agentos_store.conversations.message_models import Message
from agentos_store.engine.session import Session
from agentos_store.engine.statement import build_model, plain_json
from agentos_store.errors import InvalidValueError, PayloadTooLargeError
from agentos_store.types import Gate, Int64, Money, new_ulids

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

NOTHING = Decimal(0)
_INT64, _MONEY = Int64(), Money()


class Draft:
    """One message that is about to be written."""

    __slots__ = ("_path", "cost", "row", "tokens", "values")

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
        get = values.get
        role = get("role")
        try:
            content = read_content(role, get("content"), get("tool_calls"), session.max_payload)
        except InvalidValueError as error:
            raise _named(error, path) from None
        counts = get("input_tokens"), get("output_tokens")
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            if (count := get(name)) is not None:
                _counted(count, name, _INT64, MOST_TOKENS, path)
        tokens = get("token_count")
        if tokens is None:
            tokens = sum(count for count in counts if count is not None)
        self.tokens = _counted(tokens, "token_count", _INT64, MOST_TOKENS, path)
        """What the message counts for."""
        cost = get("cost")
        self.cost = NOTHING if cost is None else _counted(cost, "cost", _MONEY, MOST_COST, path)
        """What it cost; nothing where nobody said."""
        own, time, metadata = get("id"), get("created_at"), get("metadata")
        if time is not None:
            time = checked(time, "created_at", path)
        self.row: dict[str, Any] = {
            "id": own if own is not None else key or session.new_ulid(),
            "session_id": session_id,
            "agent_id": get("agent_id"),
            "to_generation": None,
            "role": role,
            "name": get("name"),
            "content": content.text,
            "tool_calls": content.tool_calls,
            "tool_call_id": get("tool_call_id"),
            "content_types": content.types,
            "tool_names": content.tool_names,
            "model": get("model"),
            "token_count": self.tokens,
            "input_tokens": counts[0],
            "output_tokens": counts[1],
            "cached_tokens": get("cached_tokens"),
            "cost": None if cost is None else self.cost,
            "metadata": {} if metadata is None else plain_json(metadata),
            "idempotency_key": get("idempotency_key"),
            "copied_from": None,
            "created_at": time if time is not None else now or session.now(),
        }
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

    def placed(self, seq: int, generation: int) -> dict[str, Any]:
        """Return the values by column, with the place."""
        return {**self.row, "seq": seq, "from_generation": generation}

    def built(self, seq: int, generation: int) -> Message:
        """Return the row that was written."""
        row = self.placed(seq, generation)
        row["content"], row["tool_calls"] = self.values.get("content"), self.values.get("tool_calls")
        return build_model(Message, row)


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
    return [_as_mapping(given, f"messages[{place}]") for place, given in enumerate(messages)]


def _as_mapping(given: object, path: str) -> Mapping[str, Any]:
    if isinstance(given, Message):
        return _mapping_of(given)
    if not isinstance(given, Mapping):
        raise InvalidValueError(path, "must be a mapping such as {'role': 'user', 'content': '…'}, or a Message")
    if not FIELDS.issuperset(given):
        unknown = given.keys() - FIELDS
        known = ", ".join(sorted(FIELDS))
        raise InvalidValueError(f"{path}[{min(map(str, unknown))!r}]", f"there is no such field; there are {known}")
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


def checked(value: Any, name: str, path: str = "") -> Any:
    """Return a value as its column takes it."""
    type_ = MESSAGES.c[name].type
    assert isinstance(type_, Gate)
    try:
        return type_.check(value, name)
    except InvalidValueError as error:
        raise _named(error, path) from None


def _counted(value: Any, name: str, type_: Gate[C], most: C, path: str) -> C:
    if value.__class__ is int and type_ is _INT64 and 0 <= value <= most:
        return value
    try:
        checked = type_.check(value, name)
    except InvalidValueError as error:
        raise _named(error, path) from None
    if not 0 <= checked <= most:
        raise _named(InvalidValueError(name, f"must be from 0 to {most:,}"), path)
    return checked


def _named(error: InvalidValueError, path: str) -> InvalidValueError:
    if path:
        error.name = f"{path}.{error.name}"
        error.args = (f"{error.name}: {error.why}",)
    return error
