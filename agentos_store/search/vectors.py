"""The nearest of many vectors, exactly, by NumPy over all of them at once.

All are compared in 32 bits first, which is as fast as memory can be read. Whatever could be among the nearest, given
how far rounding can mislead, is compared again in 64 bits, one by one in the same order of additions, so that a vector
has one score, whichever others it is compared with and on whichever database.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from agentos_store.errors import InvalidValueError, UsageError
from agentos_store.types import Float32Vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

METRICS = ("cosine", "dot", "l2")

MOST_BYTES = 512 * 1024 * 1024
"""Bytes of vectors that a process keeps; of a model that has more they are read anew for each search."""

_ROUNDING = 2.0**-23
_LARGE, _SMALL = 2.0**20, 2.0**-20
"""Lengths between which 32 bits neither overflow nor vanish when two vectors are multiplied."""

_VECTOR = Float32Vector()


def import_numpy() -> Any:
    """Return NumPy; UsageError says how to install it."""
    try:
        import numpy as np
    except ImportError:
        raise UsageError("a search by vector needs NumPy: pip install 'agentos-store[vectors]'") from None
    return np


class Wanted:
    """A vector whose neighbours are searched, by one of the metrics."""

    def __init__(self, vector: object, metric: object) -> None:
        if metric not in METRICS:
            raise InvalidValueError("metric", f"must be one of {', '.join(METRICS)}")
        np = import_numpy()
        self.metric = metric
        self.exact: Doubles = np.frombuffer(_VECTOR.check(vector, "vector"), "<f4").astype(np.float64)
        self.length = float(np.sqrt((self.exact * self.exact).sum()))
        self.unit: Floats = (self.exact / self.length).astype(np.float32)

    @property
    def dimensions(self) -> int:
        """How many numbers the vector has."""
        return len(self.exact)


class Matrix:
    """Vectors of one number of dimensions under their keys; it never changes."""

    def __init__(
        self, keys: Sequence[str], revisions: Sequence[str], vectors: Sequence[bytes], dimensions: int
    ) -> None:
        np = import_numpy()
        size = 4 * dimensions
        if any(len(vector) != size for vector in vectors):
            # Nobody writes such a thing, or the next one, but past the library.
            keys, revisions, vectors = _chosen([len(vector) == size for vector in vectors], keys, revisions, vectors)
        rows: Floats = np.frombuffer(b"".join(vectors), "<f4").reshape(len(keys), dimensions)
        lengths: Doubles = np.sqrt(_sums(rows, _square))
        good = np.isfinite(lengths) & (lengths > 0)
        if not good.all():
            keys, revisions = _chosen(good.tolist(), keys, revisions)
            rows, lengths = rows[good], lengths[good]
        self.keys = keys
        """Sorted."""
        self.revisions = revisions
        """What tells whether a vector is still the one under its key."""
        exponents = np.zeros(len(keys), np.int32)
        if len(keys) and not (lengths.min() > _SMALL and lengths.max() < _LARGE):
            # Multiplied by powers of two nothing is lost.
            exponents = np.frexp(lengths)[1]
            rows = np.ldexp(rows, -exponents[:, None])
        self._set(np.ascontiguousarray(rows, np.float32), lengths, np.ldexp(1.0, exponents))

    def _set(self, rows: Floats, lengths: Doubles, scales: Doubles) -> None:
        np = import_numpy()
        self._rows = rows
        self._lengths = lengths
        self._scales = scales
        """By which the rows are to be multiplied: powers of two."""
        self._inverse: Floats = (scales / lengths).astype(np.float32)
        self._places: dict[str, int] | None = None

    def changed(self, keys: Sequence[str], revisions: Sequence[str], others: Matrix) -> Matrix:
        """Return the matrix of these keys, some of which are among the others now; the rest are as they are here."""
        np = import_numpy()
        made = Matrix.__new__(Matrix)
        made.keys, made.revisions = keys, revisions
        # Numbered as if the others lay behind.
        there, here, behind = others.places, self.places, len(self)
        found = (there[key] + behind if key in there else here[key] for key in keys)
        places = np.fromiter(found, np.intp, len(keys))
        is_other = places >= behind
        rows = np.empty((len(keys), self._rows.shape[1]), np.float32)
        rows[~is_other] = self._rows[places[~is_other]]
        rows[is_other] = others._rows[places[is_other] - behind]
        lengths = np.concatenate([self._lengths, others._lengths])[places]
        made._set(rows, lengths, np.concatenate([self._scales, others._scales])[places])  # noqa: SLF001  its own class
        return made

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimensions(self) -> int:
        """How many numbers each vector has."""
        return int(self._rows.shape[1])

    @property
    def size(self) -> int:
        """Bytes, without the keys."""
        return int(self._rows.nbytes)

    @property
    def places(self) -> dict[str, int]:
        """By key where its vector is."""
        if self._places is None:
            self._places = {key: place for place, key in enumerate(self.keys)}
        return self._places

    def nearest(self, wanted: Wanted, count: int, among: Iterable[str] | None = None) -> list[tuple[str, float]]:
        """Return the keys of the nearest vectors with their scores, the best first, ties by key.

        The greater a score, the nearer: the cosine, the dot product, or the distance below zero. ``among`` are the keys
        that are asked for; those without a vector are passed over.
        """
        np = import_numpy()
        chosen: Any = None
        rows, inverse, scales, lengths = self._rows, self._inverse, self._scales, self._lengths
        if among is not None:
            places = self.places
            chosen = np.array(sorted({places[key] for key in among if key in places}), np.intp)
            rows, inverse, scales, lengths = rows[chosen], inverse[chosen], scales[chosen], lengths[chosen]
        if not len(rows) or count <= 0:
            return []
        # As a product of matrices it would be shared out among threads, and wait for processors that others use.
        products: Floats = np.vecdot(rows, wanted.unit)
        candidates = self._candidates(wanted, products, inverse, scales, lengths, count)
        found = candidates if chosen is None else chosen[candidates]
        scores = self._scores(wanted, found)
        # The places are in order, and so are the keys: what is stable leaves ties in the order of the keys.
        order = np.argsort(-scores, kind="stable")[:count]
        keys = map(self.keys.__getitem__, found[order].tolist())
        return list(zip(keys, scores[order].tolist(), strict=True))

    def _candidates(
        self, wanted: Wanted, products: Floats, inverse: Floats, scales: Doubles, lengths: Doubles, count: int
    ) -> Any:
        """Return the places of whatever may be among the nearest."""
        np = import_numpy()
        error = (wanted.dimensions + 8) * _ROUNDING
        rough: Any
        if len(products) <= count:
            return np.arange(len(products))
        if wanted.metric == "cosine":
            rough = products * inverse
        elif wanted.metric == "dot":
            rough = products * scales
            error *= float(lengths.max())
        else:
            rough = 2 * wanted.length * (products * scales) - lengths * lengths
            longest = float(lengths.max())
            error *= 2 * wanted.length * longest + longest * longest * 2.0**-20
        # The greatest numbers of parts are numbers of the whole: so many of them are a bound, and soon found.
        parts = 4 * count
        size = len(rough) // parts
        heads = rough[: parts * size].reshape(parts, size).max(axis=1) if size > 1 else rough
        kth = len(heads) - count
        least = float(np.partition(heads, kth)[kth])
        return np.flatnonzero(rough >= least - 2 * error)

    def _scores(self, wanted: Wanted, places: Any) -> Doubles:
        np = import_numpy()
        exact, rows, scales = wanted.exact, self._rows[places], self._scales[places]
        scores: Doubles
        if wanted.metric == "l2":

            def apart(block: Doubles, start: int) -> None:
                block *= scales[start : start + len(block), None]
                block -= exact
                block *= block

            scores = -np.sqrt(_sums(rows, apart))
            return scores

        def multiply(block: Doubles, _start: int) -> None:
            block *= exact

        scores = _sums(rows, multiply) * scales
        if wanted.metric == "cosine":
            scores = np.clip(scores / (self._lengths[places] * wanted.length), -1.0, 1.0)
        # A zero is no negative one.
        return scores + 0.0


_BLOCK = 128
"""Rows that are computed with in 64 bits at once, few enough for the processor's cache to hold them."""


def _sums(rows: Floats, change: Callable[[Doubles, int], None]) -> Doubles:
    """Return the sum of each row in 64 bits, in one order of additions, when it was changed in place.

    ``change`` gets some of the rows, and where they begin.
    """
    np = import_numpy()
    sums: Doubles = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK].astype(np.float64)
        change(block, start)
        block.sum(axis=1, out=sums[start : start + _BLOCK])
    return sums


def _square(block: Doubles, _start: int) -> None:
    block *= block


def _chosen(good: Sequence[bool], *lists: Sequence[Any]) -> tuple[list[Any], ...]:
    return tuple(list(compress(each, good)) for each in lists)


class Kept:
    """Matrices that are kept under what they were read as, as many as memory is given; the least used one goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Matrix] = OrderedDict()

    def get(self, name: str) -> Matrix | None:
        """Return the matrix, or None."""
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
            return found

    def put(self, name: str, matrix: Matrix, *, instead_of: str | None = None) -> None:
        """Keep a matrix, and let go the one that it replaces."""
        with self._lock:
            if instead_of is not None:
                self._kept.pop(instead_of, None)
            self._kept[name] = matrix
            self._kept.move_to_end(name)
            size = sum(each.size for each in self._kept.values())
            while size > MOST_BYTES and self._kept:
                _, gone = self._kept.popitem(last=False)
                size -= gone.size

    def __len__(self) -> int:
        return len(self._kept)

    def after_fork(self) -> None:
        """Keep nothing in a forked child, where nobody would release a lock that another thread held."""
        self._lock = threading.Lock()
        self._kept = OrderedDict()


KEPT = Kept()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=KEPT.after_fork)
