"""A model's embeddings in memory: read once, and then only what is new of them.

A model has a revision: whoever writes embeddings gives it one that it never had; what is deleted leaves it as it is. So
a repository that read a model under its revision knows what is there, but for what was deleted since; that shows when a
hit is fetched and is not there, and then the list of keys is read again. What another repository of the process has
read serves too, after a look at that list: it may have seen a transaction that was rolled back, or a copy of the
database, where something else was deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

from sqlalchemy import bindparam, func, select

from agentos_store.engine.among import searched
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.knowledge.models import KbEmbedding, KbModel
from agentos_store.search import vectors
from agentos_store.search.keys import keys_in
from agentos_store.search.vectors import KEPT, Matrix, Wanted
from agentos_store.types import Text

MODELS = KbModel.table()
EMBEDDINGS = KbEmbedding.table()
BATCH = 4000
"""Embeddings that are read at once."""


@dataclass(frozen=True, slots=True)
class View:
    """A model's embeddings as a repository read them."""

    revision: str
    """Of the model then; empty when something was written meanwhile, so that they are no state that ever was."""
    name: str
    """What they are kept under."""
    matrix: Matrix | None
    """None for more of them than are kept in memory."""


class Views:
    """What a repository read last, by model; in memory it is for as long as there is room for it."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str, ref[Matrix]]] = {}

    def last(self, model_name: str) -> View | None:
        """Return what was read last, if it is in memory still."""
        found = self._last.get(model_name)
        if found is None:
            return None
        revision, name, matrix = found
        kept = KEPT.get(name)
        # Others may keep what they have read under the same name.
        return None if kept is None or kept is not matrix() else View(revision, name, kept)

    def note(self, model_name: str, view: View) -> None:
        """Remember what was read last."""
        if view.matrix is not None:
            self._last[model_name] = (view.revision, view.name, ref(view.matrix))


def view_of(session: Session, model_name: str, wanted: Wanted, *, last: View | None, anew: bool) -> View:
    """Return the model's embeddings as they are now, making use of what was read before.

    With ``anew`` the keys are read again although the revision is the same. Raises NotFoundError for a model without
    embeddings, and InvalidValueError for a vector of other dimensions.
    """
    model = session.first(_MODEL, {"model_name": model_name})
    if model is None:
        raise NotFoundError("embedding model", model_name)
    dimensions, revision = model
    check_dimensions(wanted, dimensions, model_name)
    if last is not None and last.revision == revision and not anew:
        return last
    # What was read under this revision, by whomever, has the least to be read again.
    base = KEPT.get(revision) or (None if last is None else last.matrix)
    matrix = None
    if base is not None and base.dimensions == dimensions:
        matrix = _read_changes(session, model_name, dimensions, base)
    if matrix is None:
        matrix = _read_all(session, model_name, dimensions)
    again = session.first(_MODEL, {"model_name": model_name})
    if matrix is not None:
        KEPT.put(revision, matrix, instead_of=None if last is None else last.name)
    return View(revision if again is not None and again[1] == revision else "", revision, matrix)


def check_dimensions(wanted: Wanted, dimensions: int, model_name: str) -> None:
    """Raise InvalidValueError for a vector of another number of dimensions."""
    if wanted.dimensions != dimensions:
        why = f"has {wanted.dimensions:,} dimensions, and the embeddings of {model_name!r} have {dimensions:,}"
        raise InvalidValueError("vector", why)


def walk_nearest(
    session: Session, model_name: str, wanted: Wanted, count: int, among: Iterable[str] | None
) -> list[tuple[str, float]]:
    """Return the nearest of more embeddings than are kept in memory, a batch at a time."""
    chosen = None if among is None else frozenset(among)
    best: list[tuple[str, float]] = []
    for rows in _batches(session, model_name):
        found = [row for row in rows if chosen is None or row[0] in chosen]
        if found:
            best += _matrix(found, wanted.dimensions).nearest(wanted, count)
            best = sorted(best, key=lambda each: (-each[1], each[0]))[:count]
    return best


def _read_all(session: Session, model_name: str, dimensions: int) -> Matrix | None:
    (count,) = session.all(_COUNT, {"model_name": model_name})[0]
    if count * dimensions * 4 > vectors.MOST_BYTES:
        return None
    return _matrix([row for rows in _batches(session, model_name) for row in rows], dimensions)


def _batches(session: Session, model_name: str) -> Iterator[list[tuple[str, str, bytes]]]:
    after = ""
    while rows := session.all(_PAGE, {"model_name": model_name, "after": after, "limit_": BATCH}):
        yield rows
        after = rows[-1][0]


def _read_changes(session: Session, model_name: str, dimensions: int, base: Matrix) -> Matrix | None:
    """Return what the matrix has become; None where it is as well read anew."""
    places = base.places
    listed: list[tuple[str, str]] = session.all(_LIST, {"model_name": model_name})
    new = [key for key, revision in listed if (place := places.get(key)) is None or base.revisions[place] != revision]
    if not new and len(listed) == len(base):
        return base
    if len(new) * 2 > len(listed):
        return None
    read: dict[str, tuple[str, str, bytes]] = {}
    for start in range(0, len(new), BATCH):
        asked = {"model_name": model_name, "keys": new[start : start + BATCH]}
        read |= {row[0]: row for row in session.all(_SOME, asked)}
    others = _matrix(list(read.values()), dimensions)
    # What was deleted between the two statements is in neither.
    unread = set(new) - read.keys()
    there = [(key, read[key][1] if key in read else revision) for key, revision in listed if key not in unread]
    if (len(there) * dimensions * 4) > vectors.MOST_BYTES:
        return None
    return base.changed([key for key, _ in there], [revision for _, revision in there], others)


def _matrix(rows: Sequence[tuple[str, str, bytes]], dimensions: int) -> Matrix:
    # Many were written together, under one revision.
    known: dict[str, str] = {}
    revisions = [known.setdefault(row[1], row[1]) for row in rows]
    return Matrix([row[0] for row in rows], revisions, [row[2] for row in rows], dimensions)


_IS_MODEL = EMBEDDINGS.c.model_name == bindparam("model_name", type_=EMBEDDINGS.c.model_name.type)
_MODEL: Statement[Any] = Statement(
    select(MODELS.c.dimensions, MODELS.c.revision).where(
        MODELS.c.model_name == bindparam("model_name", type_=MODELS.c.model_name.type)
    )
)
_COUNT: Statement[Any] = Statement(select(func.count()).select_from(EMBEDDINGS).where(_IS_MODEL))
_LIST: Statement[Any] = Statement(
    select(EMBEDDINGS.c.chunk_id, EMBEDDINGS.c.revision).where(_IS_MODEL).order_by(EMBEDDINGS.c.chunk_id)
)
_ROW = (EMBEDDINGS.c.chunk_id, EMBEDDINGS.c.revision, EMBEDDINGS.c.embedding)
_PAGE: Statement[Any] = Statement(
    select(*_ROW)
    .where(_IS_MODEL, EMBEDDINGS.c.chunk_id > bindparam("after", type_=Text()))
    .order_by(EMBEDDINGS.c.chunk_id)
    .limit(bindparam("limit_"))
)
_keys = keys_in("keys")
_SOME: Statement[Any] = Statement(
    select(*_ROW).select_from(_keys.join(EMBEDDINGS, searched(EMBEDDINGS.c.chunk_id, _keys.c.value))).where(_IS_MODEL)
)
