"""Saving a whole conversation: what is new is told from what is there, and only the difference is written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, text, type_coerce

from agentos_store.conversations.append import add_unless_changed, refuse_twice
from agentos_store.conversations.append_statements import LOCK, OPEN, SESSIONS
from agentos_store.conversations.difference import find_runs, gaps
from agentos_store.conversations.drafts import MESSAGES, Draft, as_mappings, checked, named, naming
from agentos_store.conversations.message_models import CURRENT
from agentos_store.conversations.rewrite import rewrite
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError
from agentos_store.types import Text, loads_exact, new_ulid, quick_text


@dataclass(frozen=True, slots=True)
class Saved:
    """What saving a whole conversation wrote."""

    generation: int
    """The session's generation now; it grew if anything but the end was changed."""
    message_count: int
    kept: int
    """Messages that stayed at their place and were not touched."""
    moved: int
    """Messages that stayed and got another place."""
    added: int
    closed: int
    """Messages that are no part of the conversation any more."""


def save(
    session: Session,
    session_id: str,
    messages: Sequence[Any],
    *,
    expected_generation: int | None,
    expected_next_seq: int | None,
) -> Saved:
    """Make the conversation consist of these messages.

    Without a transaction a list that only grew is appended by one statement, which holds if nobody changed the
    conversation since it was read. Whatever takes more begins a transaction, which holds the session meanwhile.
    """
    now = session.now()
    # One for all tries of this call; these two draws are all, whatever way is taken.
    sent = session.keep(_Sent())
    wanted = _Wanted(messages, now, sent, expected_generation, expected_next_seq)
    saved = _save(session, session_id, wanted)
    if saved is None:
        session.begin()
        saved = _save(session, session_id, wanted)
        assert saved is not None
    return saved


@dataclass(frozen=True, slots=True)
class _Found:
    """A conversation as it is stored."""

    generation: int
    next_seq: int
    messages: list[_Old]

    @property
    def state(self) -> tuple[int, int]:
        """Return what any change moves."""
        return self.generation, self.next_seq


@dataclass(slots=True)
class _Sent:
    """What a call has sent to be stored."""

    state: tuple[int, int] | None = None
    """What the conversation was when the last of it was sent; None before."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a conversation is to become, and from what."""

    messages: Sequence[Any]
    now: dt.datetime
    sent: _Sent
    expected_generation: int | None
    expected_next_seq: int | None

    def expect(self, session_id: str, found: _Found) -> None:
        """Raise ConflictError when the conversation is not what the caller has seen."""
        _expect(session_id, "generation", found.generation, self.expected_generation)
        _expect(session_id, "next_seq", found.next_seq, self.expected_next_seq)


def _find(session: Session, session_id: str) -> _Found:
    binds = {"session_id": session_id}
    if session.in_transaction and session.capabilities.row_locks:
        # In a statement of its own: what the next one sees is then as it was left by those for whom this one waited.
        session.first(LOCK, binds)
    rows = session.all(_OLD, binds)
    state = rows[0][:2] if rows else session.first(_STATE, binds)
    if state is None or state[0] is None:
        raise NotFoundError("session", session_id)
    generation, next_seq = state
    if next_seq and not rows and not session.in_transaction:
        # The first messages came in between the two statements.
        session.begin()
        return _find(session, session_id)
    return _Found(generation, next_seq, [_Old._make(row[2:]) for row in rows])


def _save(session: Session, session_id: str, wanted: _Wanted) -> Saved | None:
    """Return what was written, or None where that takes a transaction and there is none."""
    found = _find(session, session_id)
    generation, old = found.generation, found.messages
    # What was sent in an earlier try may have been stored, where the conversation is not what it was then.
    before = wanted.sent.state if session.repeated and wanted.sent.state != found.state else None
    if before is None:
        wanted.expect(session_id, found)
    given = as_mappings(wanted.messages)
    runs = find_runs(
        [each.key for each in old],
        _keys(given),
        lambda i, j: old[i].says(given[j]),
    )
    kept = sum(run.length for run in runs if run.old == run.new)
    if before is not None:
        # An appending leaves the generation and does not shorten; a rewriting ends the generation.
        if kept == len(given) and (generation > before[0] or len(given) >= before[1]):
            # The earlier try was committed; what others added since is theirs.
            return Saved(generation, found.next_seq, kept, 0, 0, 0)
        wanted.expect(session_id, found)
    if kept != len(old) and not session.in_transaction:
        return None
    drafts = {
        # Keys that are not drawn from the session: a second try may find others to be new, and would mix them up.
        place: Draft(session, session_id, given[place], f"messages[{place}]", wanted.now, key=new_ulid())
        for first, behind in gaps(runs, len(given), lambda run: run.new)
        for place in range(first, behind)
    }
    new = list(drafts.values())
    with naming(new):
        refuse_twice(new, "id")
        refuse_twice(new, "idempotency_key")
        wanted.sent.state = found.state
        if kept != len(old):
            generation += 1
            rewrite(session, session_id, generation, [each.id for each in old], runs, drafts, len(given), wanted.now)
        elif new and not add_unless_changed(session, session_id, new, wanted.now, found.state):
            return None
    stayed = sum(run.length for run in runs)
    return Saved(generation, len(given), kept, stayed - kept, len(new), len(old) - stayed)


class _Old(NamedTuple):
    """A message as it is stored."""

    role: str
    name: str | None
    content: str
    tool_calls: str | None
    tool_call_id: str | None
    id: str
    agent_id: str | None
    model: str | None
    token_count: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost: Any
    metadata: str

    @property
    def key(self) -> tuple[object, ...]:
        """Return what makes it this message: all that a language model sees of it."""
        return self[:5]

    def says(self, values: Mapping[str, Any]) -> bool:
        """Tell whether nothing that is given beside the key is otherwise; what is left out stays as it is."""
        for name in _BESIDE & values.keys():
            value = values[name]
            if value is None:
                continue
            if name == "metadata":
                if not _alike(plain_json(value), loads_exact(self.metadata)):
                    return False
            # Checked first, for True is no 1 and 0.5 no amount.
            elif checked(value, name) != getattr(self, name):
                return False
        return True


def _alike(left: object, right: object) -> bool:
    """Tell whether two JSON values are equal, and alike: True, 1 and 1.0 are three values."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_alike(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_alike, left, right))
    return left == right and all(isinstance(left, kind) == isinstance(right, kind) for kind in (bool, float))


_BESIDE = frozenset(
    {"agent_id", "model", "token_count", "input_tokens", "output_tokens", "cached_tokens", "cost", "metadata"}
)


def _keys(given: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    keys: list[tuple[object, ...]] = []
    for values in given:
        try:
            keys.append(_key(values))
        except InvalidValueError as error:
            raise named(error, f"messages[{len(keys)}]") from None
    return keys


def _key(values: Mapping[str, Any]) -> tuple[object, ...]:
    get = values.get
    calls = get("tool_calls")
    return (
        _comparable(get("role")),
        _comparable(get("name")),
        quick_text(get("content"), "content"),
        None if calls is None else quick_text(calls, "tool_calls"),
        _comparable(get("tool_call_id")),
    )


def _comparable(value: object) -> object:
    # What is no text is equal to nothing, so that it is looked at closely, and refused.
    return value if value is None or isinstance(value, str) else object()


def _expect(session_id: str, what: str, there: int, expected: object) -> None:
    if expected is None:
        return
    if isinstance(expected, bool) or not isinstance(expected, int):
        raise InvalidValueError(f"expected_{what}", "must be a whole number")
    if there != expected:
        raise ConflictError("session", session_id, f"its {what} is {there}, not {expected}; load it again")


_SESSION_ID = bindparam("session_id", type_=SESSIONS.c.id.type)
_TEXT = Text()
_OPEN_SESSION = (SESSIONS.c.id == _SESSION_ID, OPEN)
_STATE: Statement[Any] = Statement(select(SESSIONS.c.generation, SESSIONS.c.next_seq).where(*_OPEN_SESSION))
_OLD: Statement[Any] = Statement(
    select(
        # Not joined: the rows would be sorted by their number then, in which the index has them.
        select(SESSIONS.c.generation).where(*_OPEN_SESSION).scalar_subquery().label("generation"),
        select(SESSIONS.c.next_seq).where(*_OPEN_SESSION).scalar_subquery().label("next_seq"),
        MESSAGES.c.role,
        MESSAGES.c.name,
        # Compared as it is stored, without being read.
        type_coerce(MESSAGES.c.content, _TEXT),
        type_coerce(MESSAGES.c.tool_calls, _TEXT),
        MESSAGES.c.tool_call_id,
        MESSAGES.c.id,
        MESSAGES.c.agent_id,
        MESSAGES.c.model,
        MESSAGES.c.token_count,
        MESSAGES.c.input_tokens,
        MESSAGES.c.output_tokens,
        MESSAGES.c.cached_tokens,
        MESSAGES.c.cost,
        type_coerce(MESSAGES.c.metadata, _TEXT),
    )
    .where(MESSAGES.c.session_id == _SESSION_ID, text(f"{MESSAGES.name}.{CURRENT}"))
    .order_by(MESSAGES.c.seq)
)
