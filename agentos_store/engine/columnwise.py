"""Many rows encoded and decoded column by column: one decision for a column in place of one for each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentos_store.types.gate import Decode, Encode


def encode_column(given: Sequence[object], encode: Encode, called: str, for_none: Encode | None) -> list[object]:
    """Return the driver's values of one column of rows, of which there is at least one.

    ``for_none`` is the encoder of None where that is no NULL. Raises InvalidValueError for the first value that the
    store refuses in the column.
    """
    first = given[0]
    # The same object in every row, most often None, is looked at once. Equal ones need not be alike: 1, True and 1.0.
    if first is given[-1] and len(set(map(id, given))) == 1:
        return [encode_one(first, encode, called, for_none)] * len(given)
    if for_none is None:
        return [None if value is None else encode(value, called) for value in given]
    return [for_none(value, called) if value is None else encode(value, called) for value in given]


def encode_one(value: object, encode: Encode, called: str, for_none: Encode | None) -> object:
    """Return the driver's value of one value."""
    if value is None:
        return None if for_none is None else for_none(None, called)
    return encode(value, called)


def has_longer(column: Sequence[object], characters: int) -> bool:
    """Tell whether a column holds a text of more characters than this."""
    kinds = set(map(type, column))
    if kinds == {str}:
        return max(map(len, column)) > characters  # type: ignore[arg-type]  # as was just found
    return any(issubclass(kind, str) for kind in kinds) and any(
        isinstance(value, str) and len(value) > characters for value in column
    )


def decode_rows(rows: Sequence[Sequence[Any]], decoders: Sequence[tuple[int, Decode]]) -> Iterable[Sequence[Any]]:
    """Return the rows with decoded values; a decoder stands with the place of its column."""
    if not decoders:
        return rows
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    for place, decode in decoders if rows else ():
        column = columns[place]
        # Of the columns that may be NULL most are NULL in every row.
        if column.count(None) < len(column):
            columns[place] = [None if value is None else decode(value) for value in column]
    return zip(*columns, strict=True)
