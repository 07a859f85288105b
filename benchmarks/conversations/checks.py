"""Whether the contestants have done the same: rows are counted, numbered without a gap, and alike."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select

from benchmarks.conversations import content
from benchmarks.conversations.handwritten import MESSAGES, SESSIONS, Core
from benchmarks.measure import NotHonestError

OF_THE_ROW = frozenset({"id", "created_at"})
"""Columns in which no two rows are alike."""


def verify(urls: Mapping[str, str], *, expected: Mapping[str, int] | int, compared: int) -> None:
    """See that each contestant's sessions hold so many messages, and that the last ones are those of the others.

    ``expected`` is the number by session, or that of all sessions together.
    """
    first: tuple[str, Sequence[Any]] | None = None
    for name, url in urls.items():
        with contextlib.closing(Core.open(url)) as core:
            found = _lengths(name, core)
            if (found if isinstance(expected, Mapping) else sum(found.values())) != expected:
                raise NotHonestError(f"{name} has written {found} messages, not {expected}")
            rows = _last(core, compared)
        if first is None:
            first = name, rows
        elif rows != first[1]:
            raise NotHonestError(f"{name} has written other rows than {first[0]}: {rows} and {first[1]}")


def _lengths(name: str, core: Core) -> dict[str, int]:
    """Return how many messages each session has, after the counters and the numbers were found right."""
    counted = (
        select(func.count(MESSAGES.c.id), func.count(MESSAGES.c.seq.distinct()), func.max(MESSAGES.c.seq))
        .add_columns(func.coalesce(func.sum(MESSAGES.c.token_count), 0))
        .where(MESSAGES.c.to_generation.is_(None))
    )
    lengths = {}
    with core.engine.connect() as connection:
        for session in connection.execute(select(SESSIONS)).all():
            of_session = counted.where(MESSAGES.c.session_id == session.id)
            number, places, largest, tokens = connection.execute(of_session).one()
            told = session.message_count, session.message_count, session.next_seq, session.total_tokens
            if (number, places, -1 if largest is None else largest, tokens) != (told[0], told[1], told[2] - 1, told[3]):
                raise NotHonestError(f"{name} has miscounted session {session.id}")
            if number and session.unindexed_from != 0:
                raise NotHonestError(f"{name} keeps the search from session {session.id}")
            lengths[session.id] = number
    return lengths


def _last(core: Core, number: int) -> Sequence[Any]:
    columns = [column for column in MESSAGES.c if column.name not in OF_THE_ROW]
    asked = select(*columns).where(MESSAGES.c.session_id == content.SESSION).order_by(MESSAGES.c.seq.desc())
    with core.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(asked.limit(number))]


def expect_equal(what: str, answers: Mapping[str, Any]) -> None:
    """See that all have given the same answer."""
    (first, answer), *others = answers.items()
    for name, other in others:
        if other != answer:
            raise NotHonestError(f"{what}: {name} has read something else than {first}")
