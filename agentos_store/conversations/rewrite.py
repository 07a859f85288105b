"""Saving a whole conversation: what is new is told from what is there, and only the difference is written.

A rewriting begins a new generation. Rows that are no part of it any more are closed, and stay for the snapshots that
were taken before. A row that only moves, because something before it was cut out or put in, keeps its identifier and
its time; the place that it had is kept by a closed copy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, cast, insert, null, select, text, type_coerce, update

from agentos_store.conversations.append import (
    add,
    add_unless_changed,
    cost_of,
    explain_rows,
    refuse_keys_twice,
    refuse_twice,
    tokens_of,
    write_rows,
)
from agentos_store.conversations.append_statements import LOCK, OPEN, SESSIONS, spendable
from agentos_store.conversations.difference import Run, find_runs, gaps
from agentos_store.conversations.drafts import MESSAGES, NOTHING, Draft, as_mappings, checked, named, naming
from agentos_store.conversations.message_models import CURRENT
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import BudgetExceededError, ConflictError, InvalidValueError, NotFoundError
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
    generation, old, before = found.generation, found.messages, wanted.sent.state
    # What was sent in an earlier try may have been stored, where it changed since.
    in_doubt = session.repeated and before is not None and found.state != before
    if not in_doubt:
        wanted.expect(session_id, found)
    given = as_mappings(wanted.messages)
    runs = find_runs(
        [each.key for each in old],
        _keys(given),
        lambda i, j: old[i].says(given[j]),
    )
    kept = sum(run.length for run in runs if run.old == run.new)
    if in_doubt and before is not None:
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
        refuse_twice(new)
        refuse_keys_twice(new)
        wanted.sent.state = found.state
        if kept != len(old):
            generation += 1
            try:
                _rewrite(session, session_id, generation, old, runs, drafts)
            except IntegrityViolation as violation:
                raise explain_rows(violation, new, session) from None
            _count(session, session_id, generation, len(given), runs, drafts, wanted.now)
        elif new and session.in_transaction:
            add(session, session_id, new, wanted.now)
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


def renumber(session: Session, session_id: str) -> int:
    """Give the messages of a conversation with gaps the numbers 0, 1, 2, …, as a new generation; return how many moved.

    A repair: nothing in the store leaves a gap.
    """
    found = session.first(_LOCK_ANY if session.capabilities.row_locks else _READ_ANY, {"session_id": session_id})
    if found is None:
        raise NotFoundError("session", session_id)
    generation = found[0] + 1
    rows = session.all(_PLACES, {"session_id": session_id})
    moves = [(id_, seq, place) for place, (id_, seq) in enumerate(rows) if seq != place]
    if not moves:
        return 0
    binds = {"session_id": session_id, "generation": generation, "tag": f"{new_ulid()}@"}
    first = moves[0][1]
    session.execute(_COPY, {**binds, "first": first, "behind": rows[-1][1] + 1})
    # All go down, so who goes first makes room for the next.
    session.execute_many(_MOVE, [{"id": id_, "seq": place, "generation": generation} for id_, _, place in moves])
    binds |= {"length": len(rows), "tokens": 0, "spent": NOTHING, "now": session.now()}
    session.execute(_COUNT, {**binds, "first_new": None, "first_changed": moves[0][2]})
    return len(moves)


def _rewrite(
    session: Session,
    session_id: str,
    generation: int,
    old: Sequence[_Old],
    runs: Sequence[Run],
    drafts: Mapping[int, Draft],
) -> None:
    binds = {"session_id": session_id, "generation": generation, "tag": f"{new_ulid()}@"}
    for first, behind in gaps(runs, len(old), lambda run: run.old):
        session.execute(_CLOSE, {**binds, "first": first, "behind": behind})
    moves: list[tuple[int, int]] = []
    for run in runs:
        if run.old != run.new:
            session.execute(_COPY, {**binds, "first": run.old, "behind": run.old + run.length})
            moves += [(run.old + i, run.new + i) for i in range(run.length)]
    # No two messages may have one place, not even for a moment: who goes down goes first, from the bottom; then who
    # goes up, from the top.
    moves = [move for move in moves if move[1] < move[0]] + [move for move in reversed(moves) if move[1] > move[0]]
    session.execute_many(
        _MOVE, [{"id": old[origin].id, "seq": place, "generation": generation} for origin, place in moves]
    )
    if drafts:
        write_rows(session, list(drafts.values()), list(drafts), generation)


def _count(
    session: Session,
    session_id: str,
    generation: int,
    length: int,
    runs: Sequence[Run],
    drafts: Mapping[int, Draft],
    now: dt.datetime,
) -> None:
    new = list(drafts.values())
    changed = [length, *drafts, *(run.new for run in runs if run.old != run.new)]
    binds = {"session_id": session_id, "generation": generation, "length": length}
    binds |= {"tokens": tokens_of(new), "spent": cost_of(new), "now": now}
    binds |= {"first_new": min(drafts, default=None), "first_changed": min(changed)}
    if session.execute(_COUNT, binds) == 0:
        raise BudgetExceededError(session_id)


_SESSION_ID = bindparam("session_id", type_=SESSIONS.c.id.type)
_GENERATION = bindparam("generation", type_=SESSIONS.c.generation.type)
_LENGTH = bindparam("length", type_=SESSIONS.c.next_seq.type)
_SPENT = bindparam("spent", type_=SESSIONS.c.total_cost.type)
_TEXT = Text()

# A repair is for conversations that are deleted too.
_ANY = select(SESSIONS.c.generation, SESSIONS.c.next_seq).where(SESSIONS.c.id == _SESSION_ID)
_READ_ANY: Statement[Any] = Statement(_ANY)
_LOCK_ANY: Statement[Any] = Statement(_ANY.with_for_update(key_share=True))
_PLACES: Statement[Any] = Statement(
    select(MESSAGES.c.id, MESSAGES.c.seq)
    .where(MESSAGES.c.session_id == _SESSION_ID, text(f"{MESSAGES.name}.{CURRENT}"))
    .order_by(MESSAGES.c.seq)
)
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
_WITHIN = (
    MESSAGES.c.session_id == _SESSION_ID,
    text(f"{MESSAGES.name}.{CURRENT}"),
    MESSAGES.c.seq >= bindparam("first", type_=MESSAGES.c.seq.type),
    MESSAGES.c.seq < bindparam("behind", type_=MESSAGES.c.seq.type),
)
_CLOSE: Statement[Any] = Statement(update(MESSAGES).where(*_WITHIN).values(to_generation=_GENERATION))


def _copy() -> Statement[Any]:
    values = {c.name: c for c in MESSAGES.c} | {
        # No key of the caller's can be in its way, or be too long for it.
        "id": bindparam("tag", type_=_TEXT).op("||")(cast(MESSAGES.c.seq, _TEXT)),
        "to_generation": _GENERATION,
        "copied_from": MESSAGES.c.id,
        "idempotency_key": null(),
    }
    source = select(*values.values()).where(*_WITHIN)
    return Statement(insert(MESSAGES).from_select([*values], source, include_defaults=False))


_COPY = _copy()
_MOVE: Statement[Any] = Statement(
    update(MESSAGES)
    .where(MESSAGES.c.id == bindparam("id", type_=MESSAGES.c.id.type))
    .values(seq=bindparam("seq", type_=MESSAGES.c.seq.type), from_generation=_GENERATION)
)
_FIRST_CHANGED = bindparam("first_changed", type_=SESSIONS.c.unindexed_from.type)
# What is indexed stays so wherever it moves; what is not may have moved to before the place that is told.
_UNINDEXED_FROM = case(
    (SESSIONS.c.unindexed_from.is_(None), bindparam("first_new", type_=SESSIONS.c.unindexed_from.type)),
    (SESSIONS.c.unindexed_from > _FIRST_CHANGED, _FIRST_CHANGED),
    else_=SESSIONS.c.unindexed_from,
)
_COUNT: Statement[Any] = Statement(
    update(SESSIONS)
    .where(SESSIONS.c.id == _SESSION_ID, spendable(_SPENT))
    .values(
        generation=_GENERATION,
        next_seq=_LENGTH,
        message_count=_LENGTH,
        total_tokens=SESSIONS.c.total_tokens + bindparam("tokens", type_=SESSIONS.c.total_tokens.type),
        total_cost=SESSIONS.c.total_cost + _SPENT,
        unindexed_from=_UNINDEXED_FROM,
        updated_at=bindparam("now", type_=SESSIONS.c.updated_at.type),
    )
)
